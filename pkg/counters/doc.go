// Package counters counts the ADDs of a host, their durations and their errors. The counters are in
// one page of memory that all processes of the plugin share. The page is a file that the node agent
// has created.
//
// One instruction adds to a counter, so the processes need no lock. If a process is killed, the
// counters stay valid. Only the ADD that it was counting may be missing in some of them.
//
// The plugin imports this package, so it must stay small.
package counters
