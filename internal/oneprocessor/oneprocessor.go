// Package oneprocessor limits the Go runtime to one processor when a program starts. A program that
// runs for a few milliseconds in a single goroutine then wakes fewer threads, and its memory allocator
// uses fewer pages.
//
// The package must import nothing but runtime. Go then initialises it before the other packages, when
// no other goroutine runs yet. Later, the change itself would take longer than it saves.
package oneprocessor

import "runtime"

func init() { runtime.GOMAXPROCS(1) }
