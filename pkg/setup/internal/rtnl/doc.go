// Package rtnl reads and changes links, veth pairs, addresses, routes, queueing disciplines and
// filters by rtnetlink. Most functions are one request, or add one request to a netns.Batch.
//
// The package must not know why a link has an address or a route: networks, policies and the
// lifetime of bridges belong to package bridges. It must not know iptables or nf_tables.
//
// Start with Link and ByName in link.go. Then read Veth and Configure in veth.go, which make and set
// up the container's end. removal.go explains how DEL returns before the kernel has freed a link.
package rtnl
