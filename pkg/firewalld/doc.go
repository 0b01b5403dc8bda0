// Package firewalld asks the firewalld daemon over D-Bus to accept the packets of bridges
// (firewalld.dbus(5)).
//
// Start with Client in firewalld.go. The package knows links by name only.
//
// The plugins must not import it: the D-Bus library makes the executable an eighth larger, and its start about
// a tenth slower. They run bvctl instead, once for each bridge and each host port.
package firewalld
