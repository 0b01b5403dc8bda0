// Package netns opens, enters, names and locks network namespaces, and speaks to the kernel in
// them: netlink sockets, batches of netlink requests, and sysctls.
//
// It is the ground floor: it knows threads, sockets and bytes, but neither links nor rules. All
// packages above pass a *Namespace around.
//
// Start with Namespace (namespace.go), then Ask and Exchange (netlink.go, batch.go), by which
// every request of the packages above reaches the kernel.
package netns
