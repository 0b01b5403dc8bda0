// Package allocator chooses addresses: which address an attachment gets, which pool it comes
// from, and whose lease is ended when no address is free.
//
// It works on the records of one network, within a transaction that the caller has begun. It
// opens no file, takes no lock and knows no configuration keys.
//
// Start with Reserve in reserve.go. choose.go picks an address of one set, pool.go finds a
// free address, reclaim.go makes room, shared.go keeps networks apart.
package allocator
