package setup

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// onLinkLacks looks for the host's routes to containers that have a gateway outside of their
// subnet: no address of the link brings such a route along. Any route by the link will do.
func (n *Namespace) onLinkLacks(net *Network, l link) (lacks []lack, err error) {
	name := net.RoutedBy()
	for _, a := range net.OnLink {
		if l.index != 0 {
			leads, err := n.leadsTo(a.Addr(), l)
			if err != nil {
				return nil, err
			}
			if leads {
				continue
			}
		}
		lacks = append(lacks, lack{
			what: fmt.Sprintf("route to %s by bridge %s", a.Masked(), name),
			mend: func() error { return n.ensureOnLink(name, a.Masked()) },
		})
	}
	return lacks, nil
}

// leadsTo says whether the host sends packets for an address by a link.
func (n *Namespace) leadsTo(a netip.Addr, l link) (bool, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, 0)
	req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(familyOf(a)), Dst_len: uint8(a.BitLen())}})
	req.AddData(nl.NewRtAttr(unix.RTA_DST, a.AsSlice()))
	answers, err := n.ask(unix.NETLINK_ROUTE, req)
	for _, none := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL} { // also by such a route
		if errors.Is(err, none) {
			return false, nil
		}
	}
	if err != nil || len(answers) != 1 || len(answers[0]) < unix.SizeofRtMsg {
		return false, fmt.Errorf("look up route to %s: %d answers: %w", a, len(answers), err)
	}
	return attrs(answers[0][unix.SizeofRtMsg:]).integer(unix.RTA_OIF) == l.index, nil
}

// ensureOnLink gives the host a route to a subnet by a link. Its protocol says that it is ours.
func (n *Namespace) ensureOnLink(name string, subnet netip.Prefix) error {
	l, err := n.link(name)
	if err != nil {
		return err
	}
	var b batch
	r := Route{Destination: subnet}
	b.ensure("add route "+r.String(), routeRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, l, r, ownerMark), unix.EEXIST)
	return n.send(b)
}

// deleteOnLink deletes the routes that ensureOnLink has made by a link, where old says so.
func (n *Namespace) deleteOnLink(b *batch, l link, old func(netip.Prefix) bool) error {
	library, err := n.library()
	if err != nil {
		return err
	}
	routes, err := dump(func() ([]netlink.Route, error) {
		want := &netlink.Route{LinkIndex: l.index, Protocol: ownerMark}
		return library.RouteListFiltered(unix.AF_UNSPEC, want, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return fmt.Errorf("list routes by %s: %w", l.name, err)
	}
	for _, found := range routes {
		if found.Dst == nil {
			continue // a default route is none of those
		}
		a, ok := netip.AddrFromSlice(found.Dst.IP)
		bits, _ := found.Dst.Mask.Size()
		r := Route{Destination: netip.PrefixFrom(a, bits)}
		if ok && old(r.Destination) {
			b.ensure("delete route "+r.String(), routeRequest(unix.RTM_DELROUTE, 0, l, r, ownerMark), unix.ESRCH)
		}
	}
	return nil
}
