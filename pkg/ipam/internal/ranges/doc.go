// Package ranges does the arithmetic of address ranges: it completes, checks, splits and
// compares them. Everything here is plain data.
//
// It knows no leases, no files and no JSON keys beyond the names in its error messages.
//
// Start with Range.Complete, which fills in a configured range, and Range.Split, which takes
// excluded and static addresses out of a range.
package ranges
