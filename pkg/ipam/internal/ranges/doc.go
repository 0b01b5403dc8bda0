// Package ranges does the arithmetic of address ranges: it completes, checks, splits and compares
// them. Everything in the package is plain data.
//
// The package knows no leases and no files. Names of JSON keys appear only in its error messages.
//
// Start with Range.Complete, which fills in a configured range, and Range.Split, which takes
// excluded and static addresses out of a range.
package ranges
