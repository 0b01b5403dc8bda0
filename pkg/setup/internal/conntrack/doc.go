// Package conntrack deletes connections from the kernel's connection tracking.
//
// The package must not contain anything about bridge ports, CNI networks or rules. Its callers
// select the connections to delete.
package conntrack
