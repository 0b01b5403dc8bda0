// Package counters counts the ADDs of a host, how long they took, and how they failed. The counters are
// in one page of memory that all processes of the plugin share, as a file that the node agent has made.
//
// Each counter is a number that is added to in one instruction. So there is no lock to wait for, and a
// process that is killed leaves valid counters: at most the last ADD is missing in some of them.
//
// The plugin imports this package, so it must stay small.
package counters
