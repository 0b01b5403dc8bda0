// Package setup joins containers to a Linux bridge: network namespaces, the bridge, veth pairs,
// addresses and routes, and what lets the packets through: the FORWARD rules and masquerade.
//
// Start with Host: AttachPort makes a port and all that its network needs, DetachPort takes both
// away, VerifyPort compares them with what they should be, and RepairPort restores what is
// missing. Network and Port describe what should be there, as data.
//
// Each Ensure or Add function may be called again with the same arguments and has an inverse,
// which succeeds on what is already gone. Functions act in the Namespace that they are given.
// They need CAP_NET_ADMIN in that namespace, and CAP_SYS_ADMIN to enter or make one. A network
// namespace belongs to a thread, so callers lock theirs first (runtime.LockOSThread). This
// package knows no CNI and no JSON, logs and prints nothing, and reads of the environment only
// PATH, for iptables and bvctl.
//
// The rooms below internal/ import each other downwards only; docs/architecture.md draws them.
package setup
