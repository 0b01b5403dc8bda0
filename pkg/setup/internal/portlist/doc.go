// Package portlist lists our host ports for other programs, in the chain of iptables where the
// reference plugin portmap has its rules. nerdctl reads that chain to find a free host port.
//
// Start with Add in portlist.go. The package does not know how packets get to a container: the rules
// in the list do nothing. The redirection itself is made by package ownrules.
package portlist
