package netns

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// IPNet converts a prefix to the type that the library github.com/vishvananda/netlink uses.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// FamilyOf returns the family of an address: AF_INET or AF_INET6.
func FamilyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
