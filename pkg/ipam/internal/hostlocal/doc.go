// Package hostlocal reads the reservations of the reference plugin host-local. These addresses
// belong to containers that keep running while an administrator replaces host-local by
// ipam-simple.
//
// The package knows only host-local's folder. It changes nothing there and does not know the
// store.
//
// Start with Leases.
package hostlocal
