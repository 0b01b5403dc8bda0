// Package leases says what a lease is: an address that one interface of one container has.
// Everything here is plain data.
//
// It knows neither how leases are stored nor how addresses are chosen.
//
// Start with Lease.
package leases
