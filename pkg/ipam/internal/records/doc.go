// Package records reads and writes the records of one network in the store: leases, the
// attachments that hold them, pools of free addresses, and addresses kept for names. Each
// change here leaves the records consistent with each other.
//
// It does not know which address to choose, and it opens no file: it works within a
// transaction that the caller has begun.
//
// Start with Network, whose comment lists the buckets. pool.go says which addresses are free.
package records
