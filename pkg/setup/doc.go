// Package setup connects containers to a Linux bridge. It creates network namespaces, the bridge,
// veth pairs, addresses, routes and rules. The rules are FORWARD rules, masquerade, host ports,
// guards (checks of source addresses) and ingress policies.
//
// Start with Host.AttachPort in attach.go. The types Network and Port describe the wanted state as
// data. AttachPort creates this state, VerifyPort compares the host and the container with it,
// RepairPort restores missing parts, and DetachPort deletes everything. example_test.go attaches
// and detaches three containers.
//
// A function whose name begins with Ensure may be called again with the same arguments. The inverse
// of such a function succeeds if there is nothing to delete. A function that has a Namespace as its
// receiver or argument acts in this namespace. It needs CAP_NET_ADMIN there, and CAP_SYS_ADMIN to
// enter or create a namespace. Each thread has its own current network namespace, so callers first
// lock their goroutine to its thread (runtime.LockOSThread).
//
// The package must not use CNI or JSON. It logs and prints nothing. The only environment variable
// that it reads is PATH, to find iptables and bvctl.
//
// docs/architecture.md shows which packages below internal/ import each other.
package setup
