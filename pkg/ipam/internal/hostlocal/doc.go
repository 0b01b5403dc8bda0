// Package hostlocal reads the reservations of the reference plugin host-local, for containers
// that keep running while their network changes over to this one.
//
// It knows host-local's folder only; it changes nothing there and has no store.
//
// Start with Leases.
package hostlocal
