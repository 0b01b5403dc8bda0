// Package checks has one check for each station on a packet's path: the container's interface, its
// address, route and neighbour entry, the port, the bridge, the host's routes, and so on.
//
// A Path (path.go) is the path of one packet. Each check is a method of Path. It adds its result to
// the Report of the path, and changes nothing on the host. CheckSilentDrops (silent_drops.go) looks
// for causes of loss that leave no counter and no error. It is called only if a packet was lost.
//
// The package sends no packets. Start with path.go, then choose the file of a station.
package checks
