// Package checks has one check for each station on a packet's path: the container's interface, its
// address, route and neighbour entry, the port, the bridge, the host's routes, and so on.
//
// A Path (path.go) is the path of one packet. Each check is a method of Path, adds what it found to
// the Report of the path, and changes nothing. CheckSilentDrops (silent_drops.go) looks for what
// drops packets without a counter or an error; it is only worth its time if a packet was lost.
//
// The package sends no packets, and does not know who asked. Start with path.go, then choose the file
// of a station.
package checks
