// Package plan describes, as data, what should exist: a Network, which the containers on one bridge
// share, a Port for each container, host ports and policies. It also derives the names, aliases and
// MAC addresses of links from an Attachment.
//
// The package must not ask or change the kernel. The packages above compare the kernel's state with a
// plan. Each Difference that they find names itself and restores itself. ADD, CHECK, repair and the
// doctor therefore work from one description.
//
// Start with Network in network.go and Port in port.go, then read Difference in difference.go.
package plan
