// Package hostlocal reads the reservations of the reference plugin host-local. They belong to
// containers that keep running while their network changes from host-local to this store.
//
// The package knows only host-local's folder. It changes nothing there and does not know the
// store.
//
// Start with Leases.
package hostlocal
