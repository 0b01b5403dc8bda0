// Package hostlocal reads the reservations of the reference plugin host-local. The reserved
// addresses belong to containers that keep running while an administrator replaces host-local by
// ipam-simple.
//
// The package reads only host-local's folder, and changes nothing there. It contains nothing about
// the store of ipam-simple.
//
// Start with Leases.
package hostlocal
