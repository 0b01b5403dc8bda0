// Package doctor finds out why a packet does not arrive. It checks each station on the packet's path
// from a container to another end, and then sends a packet of its own. If that packet is lost,
// nf_tables reports which rule dropped it (nft_trace).
//
// Start with Walk in walk.go, which calls the checks in the order of the path. The packages below:
//
//   - internal/checks has one file for each station: interface.go, neighbour.go, bridge.go and so on.
//   - internal/probe sends packets and observes them.
//   - internal/kernel reads links, addresses, routes and neighbour entries.
//   - internal/report holds what was found.
//
// The package reads no records and no configurations: its caller describes the containers as Ends. To
// trace the packet, it adds tables to nf_tables and deletes them afterwards. It changes nothing else.
// Only one process at a time may use it on a host. It needs CAP_NET_ADMIN, CAP_NET_RAW and
// CAP_SYS_ADMIN in the host's namespace.
package doctor
