// Package records reads and writes the records of one network in the store: leases, the attachments
// that hold them, pools of free addresses, and addresses kept for names. After each change, the
// records agree with each other.
//
// The package does not choose addresses and opens no file. It works within a transaction that the
// caller has begun.
//
// Start with Network, whose comment lists the buckets. pool.go says which addresses are free.
package records
