package ipam

// DefaultDir is the folder of the lease store unless the configuration names another. /run is emptied
// at boot, as leases are.
const DefaultDir = "/run/ipam-simple"
