// Package allocator chooses addresses: which address an attachment gets, from which pool, and which
// lease ends if no address is free.
//
// The package works on the records of one network, within a transaction that the caller has begun.
// It opens no file, takes no lock and contains nothing about configuration keys.
//
// Start with Reserve in reserve.go. choose.go picks an address of one set, pool.go finds a free
// address, reclaim.go ends leases, and shared.go checks that no other network uses a range.
package allocator
