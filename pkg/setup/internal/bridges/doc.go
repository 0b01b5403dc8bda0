// Package bridges creates the bridge of a network. It compares gateway addresses, VLANs, ports,
// bandwidth limits, the limit for learned MAC addresses, and the sysctls for routing with the plan.
// It also lists our ports and the containers' interfaces.
//
// The package uses rtnetlink and sysctls. It must not use iptables or nf_tables.
//
// Start with EnsureBridge in bridge.go. Then read MissingVLANs in vlan.go. Each function whose name
// begins with Missing compares one part of a network with the plan, and returns a plan.Difference
// for each missing object or setting. ports.go lists ports.
package bridges
