// Package netns opens, enters, creates and locks network namespaces. In a namespace it sends
// netlink requests and reads and writes sysctls.
//
// The package must not know links, addresses or rules. It handles threads, sockets and bytes. All
// other packages below pkg/setup receive a *Namespace and act through it.
//
// Start with Namespace in namespace.go. Then read Ask in netlink.go, which sends one request, and
// Send in batch.go, which sends several at once.
package netns
