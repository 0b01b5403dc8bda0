// Package files opens, reads and writes files that never block: regular files, folders, and
// files in /proc. It is for programs that live for milliseconds.
//
// The standard library registers each file that it opens with the Go runtime's poller. The
// poller is of no use for such files, and costs a thread's wake-up and five system calls for
// each file, about 20 µs.
//
// The package does not know the content of the files. Start with Open.
package files
