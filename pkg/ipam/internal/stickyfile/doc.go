// Package stickyfile stores the sticky addresses of each name, such as the name of a pod, in a file
// that outlives a reboot. Unlike the store, this file is synced to the disk. It is written only
// when the addresses of a name change.
//
// The package contains nothing about leases and ranges. It stores the addresses of a name as a
// record that it does not decode.
//
// Start with Open.
package stickyfile
