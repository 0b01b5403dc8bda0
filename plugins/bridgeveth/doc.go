// Package bridgeveth holds the verbs of the CNI plugin bridgeveth. It connects a container to a Linux
// bridge by a veth pair, adds rules to FORWARD chains that would drop its packets, and takes addresses
// from an IPAM plugin. Its program is cmd/bridgeveth.
//
// Start with add.go; del.go, check.go, gc.go and status.go are the other verbs, and ipam.go calls the
// IPAM plugin. The configuration keys and the plan of an attachment are in pkg/attachment. The package
// makes no kernel calls: pkg/setup does.
package bridgeveth
