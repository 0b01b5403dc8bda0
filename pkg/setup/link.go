package setup

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// MinMTU is the least MTU of a bridge and of a veth pair, in bytes: RFC 791.
	MinMTU = 68
	// MaxMTU is the largest, in bytes: ETH_MAX_MTU in linux/if_ether.h.
	MaxMTU = 65535

	addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE in linux/if_link.h
)

// ErrTaken says that a name belongs to something else, which is left alone.
var ErrTaken = errors.New("it belongs to something else")

// dump calls a listing again for as long as the kernel says that it changed
// while it was read (NLM_F_DUMP_INTR).
func dump[T any](list func() ([]T, error)) ([]T, error) {
	for {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
}

// link returns the link called name; unless there is one the error is a
// netlink.LinkNotFoundError (see absent).
func (n *Namespace) link(name string) (netlink.Link, error) {
	l, err := n.nl.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("look up link %s: %w", name, err)
	}
	return l, nil
}

// absent says whether err is that of a link that does not exist.
func absent(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}

// setUp sets the link called name up.
func (b *batch) setUp(name string) {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Flags, msg.Change = unix.IFF_UP, unix.IFF_UP
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	b.add("set "+name+" up", req)
}

// deleteLink deletes the link called name, if there is one. Deleting one end of
// a veth pair deletes both.
func (n *Namespace) deleteLink(name string) error {
	l, err := n.link(name)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := n.nl.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

// randomMAC returns a locally administered unicast address. An explicit address
// is one that udev leaves alone (MACAddressPolicy in systemd.link(5)), and one
// that keeps a bridge from taking that of whichever port comes next.
func randomMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // never fails, as documented
	mac[0] = mac[0]&^1 | 2
	return mac
}

// withoutIPv6Noise makes a request turn off the address that the kernel would
// generate for a link, and with it the MLD reports, neighbour and router
// solicitations that every port of the bridge would be flooded with. It must
// come before the link is set up.
func withoutIPv6Noise(req *nl.NetlinkRequest) {
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(addrGenModeNone))
	req.AddData(spec)
}

// ipNet is a netip.Prefix as the library wants it.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf is the inverse of ipNet.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// familyOf returns AF_INET or AF_INET6.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
