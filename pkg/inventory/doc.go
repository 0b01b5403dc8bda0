// Package inventory finds everything that bridgeveth has attached on this host. It combines four
// sources: the network configurations, libcni's records of attachments, the leases, and the
// kernel's links.
//
// Start with inventory.go. Containers in container.go lists the attachments for people. Restorables
// in restorable.go lists what bvctl repair compares with the host: each attachment that has a
// record, and the networks of containers without a record. record.go turns a record into the
// arguments with which libcni would call our plugins.
//
// The package reads a configuration only to learn whether it uses our plugins. pkg/attachment reads
// all other keys. The package imports libcni, which is slow to start, so the plugins must not
// import it.
package inventory
