// Package counters counts the ADDs of a host, their durations and their errors. The counters are in one
// page of memory that all processes of the plugin share. The page is a file that the node agent has
// made.
//
// One instruction adds to a counter, so the processes need no lock. After the kill of a process, the
// counters are valid: at most its last ADD is missing in some of them.
//
// The plugin imports this package, so it must stay small.
package counters
