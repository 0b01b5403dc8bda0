// Package conntrack deletes connections from the kernel's connection tracking.
//
// The package must not know ports, networks or rules. The package ownrules knows which connections have
// to go.
package conntrack
