// Package setup connects containers to a Linux bridge. It makes network namespaces, the bridge,
// veth pairs, addresses and routes, and the rules that packets need: the FORWARD rules,
// masquerade, host ports.
//
// Start with Host.AttachPort in attach.go. Network and Port describe, as data, what should exist.
// AttachPort makes it, VerifyPort compares it, RepairPort restores it, DetachPort deletes it.
// example_test.go shows all of this in 60 lines.
//
// A function named Ensure or Add may be called again with the same arguments. Its inverse
// succeeds if there is nothing left to delete. Functions act in the Namespace that they are
// called with. They need CAP_NET_ADMIN there, and CAP_SYS_ADMIN to enter or create a namespace.
// A network namespace belongs to a thread, so callers lock their goroutine to its thread first
// (runtime.LockOSThread).
//
// The package must not know CNI or JSON. It logs and prints nothing. Of the environment it reads
// only PATH, to find iptables and bvctl.
//
// The packages below internal/ import each other downwards only. docs/architecture.md draws them.
package setup
