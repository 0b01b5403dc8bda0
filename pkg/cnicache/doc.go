// Package cnicache reads the records that libcni keeps of attachments: who is attached to which
// network, from which configuration, and with which result. libcni writes a record at ADD and
// deletes it at DEL (libcni/api.go, cachedInfo).
//
// Start with Read in record.go. ipam-simple restores lost leases from the records. bvctl compares and
// repairs attachments with their help (pkg/inventory). The package does not import libcni, which is
// slow to start, and does not know which attachments are ours.
package cnicache
