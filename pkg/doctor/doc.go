// Package doctor finds out why a packet does not arrive. It checks each station on the packet's
// path from a container to a target, and then sends a packet of its own. If that packet is lost,
// nf_tables reports which rule dropped it (nft_trace).
//
// Start with Walk in walk.go, which calls the checks in the order of the path. The packages below:
//
//   - internal/checks has one file for each station: interface.go, neighbour.go, bridge.go and so on.
//   - internal/probe sends packets and observes them.
//   - internal/kernel reads links, addresses, routes and neighbour entries.
//   - internal/report holds what was found.
//
// The package reads neither libcni's records nor configurations: the caller describes each
// container as an End. To trace the packet, the package adds tables to nf_tables and deletes them
// afterwards. It changes nothing else. Only one process at a time may use the package on a host.
// The process needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN in the host's namespace.
package doctor
