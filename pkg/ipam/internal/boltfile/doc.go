// Package boltfile opens and makes one bbolt file. It turns damage into errors, also where
// bbolt would panic, and it sets disk space aside so that records can be deleted when the disk
// is full.
//
// It knows nothing of the records in the file, except their format number. It takes no locks:
// the caller has locked the folder.
//
// Start with File.
package boltfile
