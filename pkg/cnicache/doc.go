// Package cnicache reads the records that libcni keeps of attachments. A record contains the
// container, the network configuration and the result of ADD. libcni writes a record at ADD and
// deletes it at DEL (libcni/api.go, cachedInfo).
//
// Start with Read in record.go, which returns the records of all plugins, not only those of
// bridgeveth. ipam-simple restores lost leases from the records. ADD restores the host ports of other
// containers (pkg/attachment, known.go). bvctl uses the records to compare and repair attachments
// (pkg/inventory). call.go returns the arguments of a CHECK of the recorded attachment. The package
// does not import libcni, because libcni is slow to start.
package cnicache
