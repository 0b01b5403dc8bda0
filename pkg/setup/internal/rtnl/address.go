package rtnl

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

const (
	ifaProto = 11 // IFA_PROTO in linux/if_addr.h, Linux 5.18: the program that set an address

	// OwnerMark is the protocol of addresses and routes that we add, and the group of links that we create.
	// `ip addr` shows it as "proto 0x62", `ip route` as "proto 98", `ip link` as "group 98". Kernels before
	// 5.18 do not store the protocol of an address, so DEL cannot recognize our gateway address. On these
	// kernels, the last DEL leaves the address on a bridge that we did not create.
	OwnerMark = 'b'
)

// AddAddress adds a permanent address to a link. An existing address does not change. If the parameter
// detect is true, the kernel runs duplicate address detection for an IPv6 address, which takes one or two
// seconds (RFC 4862, section 5.4). Otherwise the address is usable at once.
func AddAddress(b *netns.Batch, l Link, p netip.Prefix, detect bool) {
	req := addressRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, l, p)
	req.AddData(nl.NewRtAttr(ifaProto, []byte{OwnerMark}))
	if p.Addr().Is6() && !detect {
		req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD)))
	} else if p.Addr().Is4() && p.Bits() < 31 { // a /31 has no broadcast address (RFC 3021)
		req.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, broadcast(p)))
	}
	b.Ensure(fmt.Sprintf("add address %s to %s", p, l.Name), req, unix.EEXIST)
}

// DeleteAddress is the inverse of AddAddress. If another program has deleted the link, the address is
// deleted too.
func DeleteAddress(b *netns.Batch, l Link, p netip.Prefix) {
	b.Ensure(fmt.Sprintf("delete address %s from %s", p, l.Name), addressRequest(unix.RTM_DELADDR, 0, l, p), unix.EADDRNOTAVAIL, unix.ENODEV)
}

func addressRequest(verb, flags int, l Link, p netip.Prefix) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(verb, flags)
	msg := nl.NewIfAddrmsg(netns.FamilyOf(p.Addr()))
	msg.Index = uint32(l.Index)
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

// AddressesOf returns the addresses of the interface called name, as ListAddresses does. An interface
// that does not exist has no addresses.
func AddressesOf(n *netns.Namespace, name string) ([]netip.Prefix, error) {
	l, err := ByName(n, name)
	if Absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return ListAddresses(n, l)
}

// ListAddresses returns the addresses of a link, except link-local IPv6 addresses and addresses whose
// duplicate address detection failed.
func ListAddresses(n *netns.Namespace, l Link) ([]netip.Prefix, error) {
	all, _, err := WithLinkLocal(n, l)
	return slices.DeleteFunc(all, LinkLocal6), err
}

// LinkLocal6 reports whether p is a link-local IPv6 address.
func LinkLocal6(p netip.Prefix) bool { return p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() }

// WithLinkLocal returns the addresses of a link as ListAddresses does, and also the link-local IPv6
// addresses, because a gateway may be link-local. The result own has the addresses that AddAddress added.
func WithLinkLocal(n *netns.Namespace, l Link) (all, own []netip.Prefix, err error) {
	found, err := AllAddresses(n, l.Index)
	if Absent(err) { // the link was deleted meanwhile
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list addresses of %s: %w", l.Name, err)
	}
	for _, a := range found {
		if a.Link != l.Index {
			continue
		}
		all = append(all, a.Prefix)
		if a.Own {
			own = append(own, a.Prefix)
		}
	}
	return all, own, nil
}

// LinkAddress is an address of a link.
type LinkAddress struct {
	netip.Prefix
	Link int  // index of the link
	Own  bool // we added the address with AddAddress
}

// AllAddresses returns the addresses of the link with this index, or of all links if the index is
// 0. Kernels before 4.20 ignore the index and list the addresses of all links. AllAddresses omits
// addresses whose duplicate address detection failed.
func AllAddresses(n *netns.Namespace, link int) (all []LinkAddress, err error) {
	messages, err := netns.Dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		msg := nl.NewIfAddrmsg(unix.AF_UNSPEC)
		msg.Index = uint32(link)
		req.AddData(msg)
		return n.Ask(unix.NETLINK_ROUTE, req)
	})
	for _, m := range messages {
		header := nl.DeserializeIfAddrmsg(m)
		attrs := netns.Attrs(m[header.Len():])
		a, ok := netip.AddrFromSlice(LocalAddress(attrs))
		if ok && header.Flags&unix.IFA_F_DADFAILED == 0 {
			own := bytes.Equal(attrs.Get(ifaProto), []byte{OwnerMark})
			all = append(all, LinkAddress{netip.PrefixFrom(a, int(header.Prefixlen)), int(header.Index), own})
		}
	}
	return all, err
}

// LocalAddress returns the address in an RTM_NEWADDR message. The kernel omits IFA_LOCAL for an IPv6
// address without a peer. The address is then in IFA_ADDRESS.
func LocalAddress(attrs netns.Attrs) []byte {
	if local := attrs.Get(unix.IFA_LOCAL); local != nil {
		return local
	}
	return attrs.Get(unix.IFA_ADDRESS)
}

// broadcast returns the last address of an IPv4 subnet.
func broadcast(p netip.Prefix) net.IP {
	ip, mask := p.Addr().AsSlice(), net.CIDRMask(p.Bits(), 32)
	for i := range ip {
		ip[i] |= ^mask[i]
	}
	return ip
}

// LinkLocal returns the link-local IPv6 address that is derived from a MAC address (RFC 4291, appendix
// A).
func LinkLocal(mac net.HardwareAddr) netip.Prefix {
	a := [16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}
