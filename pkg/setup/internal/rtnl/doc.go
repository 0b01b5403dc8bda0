// Package rtnl reads and changes links, veth pairs, addresses, routes and queueing disciplines by
// rtnetlink: one request, or one step of a batch, for each function.
//
// It knows plain links and addresses. It does not know why a link has an address, and no bridge's
// policy, iptables or nf_tables.
//
// Start with Link and ByName (link.go), then Veth (veth.go) and Configure, which sets up the
// container's end. removal.go shows how DEL returns before the kernel has freed a link.
package rtnl
