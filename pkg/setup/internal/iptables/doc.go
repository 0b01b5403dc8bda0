// Package iptables runs the program iptables. It does the work of the library go-iptables, which links
// the package regexp and so makes every plugin slower to start.
//
// The package contains nothing about the rules that a network needs, and about network namespaces.
//
// Start with Program.
package iptables
