// Package bridges makes the bridge of a network and keeps it as the plan has it: its gateway
// addresses, VLANs, ports, the limits of their bandwidth, and the sysctls by which the host
// routes for it.
//
// It works by rtnetlink and sysctls only. It does not know iptables or nf_tables.
//
// Start with EnsureBridge (bridge.go), then Ports (ports.go) and the functions called
// Missing..., which compare one part of a network with its plan.
package bridges
