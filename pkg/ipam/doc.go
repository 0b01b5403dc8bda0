// Package ipam gives out IP addresses from ranges on this host. A Store keeps which attachment
// has which address, in one file, for as long as the host is up.
//
// It knows no CNI and no netlink: callers tell it about containers and links.
//
// Start with Open and Store.Reserve in this folder. What they use is below internal/, where
// packages import each other downwards only:
//
//	allocator    chooses an address; choose.go
//	records      the records of a network: leases, pools of free addresses, kept addresses
//	stickyfile   the file of sticky addresses, which outlives a reboot
//	boltfile     one bbolt file: making it, opening it, finding damage
//	hostlocal    the reservations of the reference plugin host-local
//	leases       a lease, as data
//	ranges       arithmetic of address ranges
package ipam
