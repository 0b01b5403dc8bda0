// Package flock takes advisory locks on files and folders, with a deadline. If a lock is not free
// in time, the error names the process that holds the lock.
//
// The locks are flock(2) locks. The kernel releases them when their holder exits for any reason, so
// a killed process leaves no lock behind. They do not conflict with locks of fcntl(2).
//
// The package does not know what the locks protect, and it starts no program.
//
// Start with Acquire. Limit sets a deadline for all locks of the process.
package flock
