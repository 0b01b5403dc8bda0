// Package rtnl reads and changes links, veth pairs, addresses, routes, queueing disciplines and
// filters through rtnetlink. Most functions send one request, or add one request to a netns.Batch.
//
// The package must not decide which links, addresses and routes exist, because package bridges
// decides this. The package must not use iptables or nf_tables.
//
// Start with Link and ByName in link.go. Then read Veth and Configure in veth.go, which create and
// configure the container's end of the veth pair. removal.go explains how DEL returns before the
// kernel has freed a link.
package rtnl
