// Package kernel reads the state of a network namespace: links, addresses, routes, neighbour
// entries, queueing disciplines and sysctls. It changes nothing.
//
// The package must not judge what it reads, and must not contain anything about containers or
// plans. Start with link.go.
package kernel
