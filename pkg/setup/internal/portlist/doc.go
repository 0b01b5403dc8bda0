// Package portlist lists our host ports for other programs, in the chain of iptables where the
// reference plugin portmap has its rules. nerdctl reads that chain to find a free host port.
//
// Start with Add in portlist.go. The rules in the list do nothing. Package ownrules adds the rules that
// redirect packets to containers.
package portlist
