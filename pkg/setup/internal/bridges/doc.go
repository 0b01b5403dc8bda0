// Package bridges makes the bridge of a network and compares it with the plan: its gateway addresses,
// VLANs, ports, bandwidth limits, what it learns, and the sysctls for routing. It lists ports and the
// interfaces behind them.
//
// The package uses rtnetlink and sysctls. It must not know iptables or nf_tables.
//
// Start with EnsureBridge in bridge.go. Then read a function named Missing, such as MissingVLANs in
// vlan.go: it compares one part of a network with its plan and returns a plan.Difference for each
// missing thing. ports.go lists ports.
package bridges
