// Package stickyfile keeps which name has which addresses, in a file that outlives a reboot.
// Unlike the store it is synced to the disk, and it is written only when a name is new or gone.
//
// It knows no leases and no ranges: the addresses of a name are a record to it.
//
// Start with Open.
package stickyfile
