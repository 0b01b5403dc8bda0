// Bvctl shows, checks and repairs what bridgeveth and ipam-simple have made on this host. Run it as
// root in the host's network namespace.
//
// Each command has its own file: doctor.go, inspect.go, topology.go, leases.go, check.go (leases
// check), repair.go and node.go. pkg/inventory finds the attachments, and pkg/doctor follows
// packets. This package makes no kernel calls and imports no plugin.
package main
