// Package ipam gives out IP addresses from ranges on this host. A Store records in one file which
// attachment has which address. Leases end when the host boots.
//
// The package uses neither CNI nor netlink. The caller passes the facts about containers and links.
//
// Start with Open and Store.Reserve in this folder. They use the packages below internal/. Each of
// these packages imports only packages further down in this list:
//
//	allocator    chooses an address; choose.go
//	records      the records of a network: leases, pools of free addresses, kept addresses
//	stickyfile   the file of sticky addresses, which outlives a reboot
//	boltfile     one bbolt file: making it, opening it, finding damage
//	hostlocal    the reservations of the reference plugin host-local
//	leases       a lease, as data
//	ranges       arithmetic of address ranges
package ipam
