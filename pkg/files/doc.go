// Package files opens, reads and writes files that never block: regular files, folders, and files
// in /proc. It is for programs that live for milliseconds.
//
// The standard library registers each file that it opens with the poller of the Go runtime. For
// files that never block, the poller is of no use. It costs five system calls and the wake-up of a
// thread for each file, about 20 µs.
//
// MakeFolder and CheckFolder refuse a folder that another user can change or replace.
//
// The package does not know the content of the files. Start with Open.
package files
