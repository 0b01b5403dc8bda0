// Package stickyfile stores which name has which addresses, in a file that outlives a reboot.
// Unlike the store, this file is synced to the disk. It is written only when the addresses of a
// name change.
//
// The package knows no leases and no ranges. For it, the addresses of a name are only a record.
//
// Start with Open.
package stickyfile
