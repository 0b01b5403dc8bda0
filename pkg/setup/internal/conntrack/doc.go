// Package conntrack deletes connections from the kernel's connection tracking.
//
// The package must not contain anything about ports, networks or rules. The package ownrules
// selects the connections to delete.
package conntrack
