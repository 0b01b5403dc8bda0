// Package ranges contains the arithmetic of address ranges: it completes, checks, splits and
// compares ranges. Everything in the package is plain data.
//
// The package contains nothing about leases and files. It contains names of JSON keys only in its
// error messages.
//
// Start with Range.Complete, which fills in a configured range, and Range.Split, which takes
// excluded and static addresses out of a range.
package ranges
