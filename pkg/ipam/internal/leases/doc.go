// Package leases defines a lease: an address that one interface of one container has. Everything in
// the package is plain data.
//
// The package contains nothing about how leases are stored or how addresses are chosen.
//
// Start with Lease.
package leases
