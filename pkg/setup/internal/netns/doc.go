// Package netns opens, enters, creates and locks network namespaces. In a namespace it sends
// netlink requests and reads and writes sysctls.
//
// The package handles threads, sockets and bytes. It must contain nothing about links, addresses or
// rules. All other packages below pkg/setup get a *Namespace and act through it.
//
// Start with Namespace in namespace.go. Then read Ask in netlink.go, which sends one request, and
// Send in batch.go, which sends several at once.
package netns
