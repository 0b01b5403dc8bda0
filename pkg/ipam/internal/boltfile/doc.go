// Package boltfile creates and opens one bbolt file. It returns an error if the file is damaged,
// even where bbolt would panic. It reserves disk space in advance, so that records can be deleted
// on a full disk.
//
// The only record that the package reads itself is the format number. It takes no locks, because
// the caller has locked the folder.
//
// Start with File.
package boltfile
