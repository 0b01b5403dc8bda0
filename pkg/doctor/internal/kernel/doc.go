// Package kernel reads the state of a network namespace: links, addresses, routes, neighbour entries,
// queueing disciplines and sysctls. It changes nothing.
//
// It does not judge what it reads. It knows neither containers nor plans. Start with link.go.
package kernel
