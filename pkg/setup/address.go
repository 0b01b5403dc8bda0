package setup

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"

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
// duplicate address detection, unless asked, which would hold an IPv6 address back for a
// second or two (RFC 4862, section 5.4). One that is there already is left.
func (b *batch) addAddress(l link, p netip.Prefix, detect bool) {
	req := addressRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, l, p)
	req.AddData(nl.NewRtAttr(ifaProto, []byte{ownerMark}))
	if p.Addr().Is6() && !detect {
		req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD)))
	} else if p.Addr().Is4() && p.Bits() < 31 { // RFC 3021: shorter subnets have no broadcast address
		req.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, broadcast(p)))
	}
	b.ensure(fmt.Sprintf("add address %s to %s", p, l.name), req, unix.EEXIST)
}

// deleteAddress is the inverse of addAddress.
func (b *batch) deleteAddress(l link, p netip.Prefix) {
	b.ensure(fmt.Sprintf("delete address %s from %s", p, l.name), addressRequest(unix.RTM_DELADDR, 0, l, p), unix.EADDRNOTAVAIL)
}

func addressRequest(verb, flags int, l link, p netip.Prefix) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(verb, flags)
	msg := nl.NewIfAddrmsg(familyOf(p.Addr()))
	msg.Index = uint32(l.index)
	msg.Prefixlen = uint8(p.Bits())
	if p.Addr().IsLinkLocalUnicast() {
		msg.Scope = unix.RT_SCOPE_LINK
	}
	req.AddData(msg)
	ip := p.Addr().AsSlice()
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, ip))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, ip))
	return req
}

// Addresses lists those of the interface called name, without the link-local ones of
// IPv6. An interface that does not exist has none.
func (n *Namespace) Addresses(name string) ([]netip.Prefix, error) {
	l, err := n.link(name)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return n.addresses(l)
}

// addresses lists those of a link, without the link-local ones of IPv6 and those that
// are of no use because a neighbour has them.
func (n *Namespace) addresses(l link) ([]netip.Prefix, error) {
	all, _, err := n.addressesOf(l)
	return slices.DeleteFunc(all, linkLocal6), err
}

// linkLocal6 says whether an address is a link-local one of IPv6.
func linkLocal6(p netip.Prefix) bool { return p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() }

// addressesOf is addresses with the link-local ones of IPv6, which a gateway may be; own are
// those of them that addAddress set.
func (n *Namespace) addressesOf(l link) (all, own []netip.Prefix, err error) {
	found, err := n.allAddresses(l.index)
	if err != nil {
		return nil, nil, fmt.Errorf("list addresses of %s: %w", l.name, err)
	}
	for _, a := range found {
		if a.link != l.index {
			continue
		}
		all = append(all, a.Prefix)
		if a.own {
			own = append(own, a.Prefix)
		}
	}
	return all, own, nil
}

// linkAddress is an address of a link.
type linkAddress struct {
	netip.Prefix
	link int  // its index
	own  bool // addAddress set it
}

// allAddresses lists those of all links, without those that are of no use because a neighbour
// has them. Some kernels list only those of the link given; 0 is none.
func (n *Namespace) allAddresses(link int) (all []linkAddress, err error) {
	messages, err := dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		msg := nl.NewIfAddrmsg(unix.AF_UNSPEC)
		msg.Index = uint32(link)
		req.AddData(msg)
		return n.ask(unix.NETLINK_ROUTE, req)
	})
	for _, m := range messages {
		header := nl.DeserializeIfAddrmsg(m)
		is := attrs(m[header.Len():])
		a, ok := netip.AddrFromSlice(localAddress(is))
		if ok && header.Flags&unix.IFA_F_DADFAILED == 0 {
			own := bytes.Equal(is.get(ifaProto), []byte{ownerMark})
			all = append(all, linkAddress{netip.PrefixFrom(a, int(header.Prefixlen)), int(header.Index), own})
		}
	}
	return all, err
}

// localAddress is IFA_LOCAL, which IPv6 leaves out unless the link has a peer.
func localAddress(is attrs) []byte {
	if local := is.get(unix.IFA_LOCAL); local != nil {
		return local
	}
	return is.get(unix.IFA_ADDRESS)
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
