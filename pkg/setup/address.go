package setup

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// IFA_PROTO of linux/if_addr.h (Linux 5.18) says who set an address; values from
// 4 on are free for use. iproute2 shows ours as "proto 0x62". Older kernels
// ignore it: there, a gateway address stays on a bridge that we did not make.
const (
	ifaProto  = 11
	ownerMark = 'b'
)

// addAddress gives a link an address, for good and ready for use at once: without
// duplicate address detection, which would hold an IPv6 address back for a second
// or two (RFC 4862, section 5.4). One that is there already is left.
func (b *batch) addAddress(name string, index int, p netip.Prefix) {
	req := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	msg := nl.NewIfAddrmsg(familyOf(p.Addr()))
	msg.Index = uint32(index)
	msg.Prefixlen = uint8(p.Bits())
	if p.Addr().IsLinkLocalUnicast() {
		msg.Scope = unix.RT_SCOPE_LINK
	}
	req.AddData(msg)
	ip := p.Addr().AsSlice()
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, ip))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, ip))
	req.AddData(nl.NewRtAttr(ifaProto, []byte{ownerMark}))
	if p.Addr().Is6() {
		req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD)))
	} else if p.Bits() < 31 { // RFC 3021: shorter subnets have no broadcast address
		req.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, broadcast(p)))
	}
	b.ensure(fmt.Sprintf("add address %s to %s", p, name), req, unix.EEXIST)
}

// deleteAddress is the inverse of addAddress.
func (n *Namespace) deleteAddress(link netlink.Link, p netip.Prefix) error {
	err := n.nl.AddrDel(link, &netlink.Addr{IPNet: ipNet(p)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("delete address %s from %s: %w", p, link.Attrs().Name, err)
	}
	return nil
}

// addresses lists those of a link, without the link-local ones of IPv6.
func (n *Namespace) addresses(link netlink.Link) ([]netip.Prefix, error) {
	all, err := dump(func() ([]netlink.Addr, error) { return n.nl.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
	}
	var found []netip.Prefix
	for _, a := range all {
		if p := prefixOf(a.IPNet); !p.Addr().Is6() || !p.Addr().IsLinkLocalUnicast() {
			found = append(found, p)
		}
	}
	return found, nil
}

// ownAddresses lists the addresses of a link that addAddress set.
func (n *Namespace) ownAddresses(link netlink.Link) ([]netip.Prefix, error) {
	return dump(func() (found []netip.Prefix, err error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
		if err := n.use(req, unix.NETLINK_ROUTE); err != nil {
			return nil, err
		}
		messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
		}
		for _, m := range messages {
			if p, own := ownAddress(m, link.Attrs().Index); own {
				found = append(found, p)
			}
		}
		return found, nil
	})
}

// ownAddress reads an RTM_NEWADDR message about a link.
func ownAddress(m []byte, index int) (p netip.Prefix, own bool) {
	header := nl.DeserializeIfAddrmsg(m)
	attrs, err := nl.ParseRouteAttrAsMap(m[header.Len():])
	proto, marked := attrs[ifaProto]
	if err != nil || int(header.Index) != index || !marked || proto.Value[0] != ownerMark {
		return p, false
	}
	a, ok := netip.AddrFromSlice(attrs[unix.IFA_ADDRESS].Value)
	return netip.PrefixFrom(a, int(header.Prefixlen)), ok
}

// broadcast is the last address of an IPv4 subnet.
func broadcast(p netip.Prefix) net.IP {
	ip, mask := p.Addr().AsSlice(), net.CIDRMask(p.Bits(), 32)
	for i := range ip {
		ip[i] |= ^mask[i]
	}
	return ip
}

// linkLocal is the IPv6 address that belongs to a MAC (RFC 4291, appendix A).
func linkLocal(mac net.HardwareAddr) netip.Prefix {
	a := [16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}
