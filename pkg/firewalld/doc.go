// Package firewalld asks the firewalld daemon over D-Bus to accept the packets of bridges
// (firewalld.dbus(5)).
//
// Start with Client in firewalld.go. The package knows links only by their names.
//
// The plugins must not import the package, because the D-Bus library makes the executable larger by
// an eighth and its start slower by a tenth. The plugins run bvctl instead: once for each new
// bridge, and once for each call about a container with host ports.
package firewalld
