package bridges

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// MissingOnLink returns the missing on-link routes of the host. The host needs an on-link route to
// each container subnet whose gateway is outside of the subnet. The kernel adds no such route,
// because link l has no address in that subnet. Any route to the subnet through l is sufficient.
func MissingOnLink(n *netns.Namespace, net *plan.Network, l rtnl.Link) (missing []plan.Difference, err error) {
	name := net.RoutedBy()
	for _, a := range net.OnLink {
		if l.Index != 0 {
			leads, err := leadsTo(n, a.Addr(), l)
			if err != nil {
				return nil, err
			}
			if leads {
				continue
			}
		}
		missing = append(missing, plan.Difference{
			What:    fmt.Sprintf("route to %s by bridge %s", a.Masked(), name),
			Restore: func() error { return ensureOnLink(n, name, a.Masked()) },
		})
	}
	return missing, nil
}

// leadsTo reports whether the host sends packets for address a through link l.
func leadsTo(n *netns.Namespace, a netip.Addr, l rtnl.Link) (bool, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, 0)
	req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(netns.FamilyOf(a)), Dst_len: uint8(a.BitLen())}})
	req.AddData(nl.NewRtAttr(unix.RTA_DST, a.AsSlice()))
	answers, err := n.Ask(unix.NETLINK_ROUTE, req)
	for _, none := range []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL} { // no route, or a route of type unreachable, prohibit or blackhole
		if errors.Is(err, none) {
			return false, nil
		}
	}
	if err != nil || len(answers) != 1 || len(answers[0]) < unix.SizeofRtMsg {
		return false, fmt.Errorf("look up route to %s: %d answers: %w", a, len(answers), err)
	}
	return netns.Attrs(answers[0][unix.SizeofRtMsg:]).Integer(unix.RTA_OIF) == l.Index, nil
}

// ensureOnLink adds a route of the host to a subnet through the link called name. The protocol of
// the route marks the route as ours.
func ensureOnLink(n *netns.Namespace, name string, subnet netip.Prefix) error {
	l, err := rtnl.ByName(n, name)
	if err != nil {
		return err
	}
	var b netns.Batch
	r := plan.Route{Destination: subnet}
	b.Ensure("add route "+r.String(), rtnl.RouteRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, l, r, rtnl.OwnerMark), unix.EEXIST)
	return n.Send(b)
}

// DeleteOnLink adds to the batch requests that delete routes through link l. It deletes a route
// only if ensureOnLink added it and the function selected returns true for the destination.
func DeleteOnLink(n *netns.Namespace, b *netns.Batch, l rtnl.Link, selected func(netip.Prefix) bool) error {
	library, err := n.Library()
	if err != nil {
		return err
	}
	routes, err := netns.Dump(func() ([]netlink.Route, error) {
		want := &netlink.Route{LinkIndex: l.Index, Protocol: rtnl.OwnerMark}
		return library.RouteListFiltered(unix.AF_UNSPEC, want, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return fmt.Errorf("list routes by %s: %w", l.Name, err)
	}
	for _, found := range routes {
		if found.Dst == nil {
			continue // a default route
		}
		a, ok := netip.AddrFromSlice(found.Dst.IP)
		bits, _ := found.Dst.Mask.Size()
		r := plan.Route{Destination: netip.PrefixFrom(a, bits)}
		if ok && selected(r.Destination) {
			b.Ensure("delete route "+r.String(), rtnl.RouteRequest(unix.RTM_DELROUTE, 0, l, r, rtnl.OwnerMark), unix.ESRCH)
		}
	}
	return nil
}
