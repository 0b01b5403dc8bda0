// Package bridgeveth holds the verbs of the CNI plugin bridgeveth. The plugin connects a container
// to a Linux bridge by a veth pair. It adds rules to FORWARD chains that would drop the container's
// packets, and takes addresses from an IPAM plugin. Its program is cmd/bridgeveth.
//
// Start with add.go. The other verbs are in del.go, check.go, gc.go and status.go, and ipam.go
// calls the IPAM plugin. The configuration keys and the plan of an attachment are in
// pkg/attachment. The package makes no kernel calls: pkg/setup makes them.
package bridgeveth
