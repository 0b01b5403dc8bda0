package kernel

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// ask calls f with a netlink handle in a namespace. The namespace keeps the handle open for later
// calls, because it takes longer to open a socket than to send a request to the kernel.
func ask(ns *setup.Namespace, f func(*netlink.Handle) error) error {
	h, err := ns.Library()
	if err != nil {
		return err
	}
	return f(h)
}

// Link returns a link by its name.
func Link(ns *setup.Namespace, name string) (link netlink.Link, err error) {
	err = ask(ns, func(h *netlink.Handle) (err error) { link, err = h.LinkByName(name); return err })
	return link, err
}

// LinkName returns the name of the link with this index, or "" if the link does not exist.
func LinkName(ns *setup.Namespace, index int) (name string) {
	_ = ask(ns, func(h *netlink.Handle) error { // after an error, name is ""
		link, err := h.LinkByIndex(index)
		if err == nil {
			name = link.Attrs().Name
		}
		return err
	})
	return name
}

// Address is an address of a link.
type Address struct {
	netip.Prefix
	Link  string
	MAC   net.HardwareAddr // of the link
	Flags int              // IFA_F_*
}

// Links lists all links, and their addresses.
func Links(ns *setup.Namespace) (links []netlink.Link, all []Address, err error) {
	err = ask(ns, func(h *netlink.Handle) error {
		addresses, err := setup.Dump(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
		if err != nil {
			return err
		}
		links, err = setup.Dump(h.LinkList)
		byIndex := map[int]*netlink.LinkAttrs{}
		for _, l := range links {
			byIndex[l.Attrs().Index] = l.Attrs()
		}
		for _, a := range addresses {
			if l := byIndex[a.LinkIndex]; l != nil {
				all = append(all, Address{Prefix(a.IPNet), l.Name, l.HardwareAddr, a.Flags})
			}
		}
		return err
	})
	return links, all, err
}

// Prefix converts n to a netip.Prefix.
func Prefix(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// Sysctl returns the value of a key below /proc/sys/net, or "" if there is no such key.
func Sysctl(ns *setup.Namespace, key string) (value string) {
	value, _ = ns.Sysctl(key) // after an error, value is ""
	return value
}

// Qdiscs lists the kinds of a link's queueing disciplines, such as "fq_codel".
func Qdiscs(ns *setup.Namespace, link string) (kinds []string) {
	_ = ask(ns, func(h *netlink.Handle) error { // a link that no longer exists has none
		l, err := h.LinkByName(link)
		if err != nil {
			return err
		}
		all, err := setup.Dump(func() ([]netlink.Qdisc, error) { return h.QdiscList(l) })
		for _, q := range all {
			kinds = append(kinds, q.Type())
		}
		return err
	})
	return kinds
}
