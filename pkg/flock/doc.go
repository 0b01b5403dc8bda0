// Package flock takes advisory locks on files and folders, with a deadline and an error that
// names the process which holds the lock.
//
// The locks are flock(2) locks. The kernel releases them when their holder exits, in whatever
// way, so a killed process leaves no lock behind. Locks of other kinds (fcntl(2)) do not conflict
// with them.
//
// The package does not know what the locks protect, and it starts no program.
//
// Start with Acquire. Limit sets a deadline for all locks of the process.
package flock
