// Package cnicache reads the records that libcni keeps of attachments. A record contains the
// container, the network configuration and the result of ADD. libcni writes a record at ADD and
// deletes it at DEL (libcni/api.go, cachedInfo).
//
// Start with Read in record.go. ipam-simple restores lost leases from the records. bvctl uses them
// to compare and repair attachments (pkg/inventory). The package does not import libcni, which is
// slow to start. It also returns records of attachments that other plugins have made.
package cnicache
