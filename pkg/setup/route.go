package setup

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Route is a route of a container. An invalid Gateway means that the destination is
// on the link. What is zero or nil is left to the kernel.
type Route struct {
	Destination netip.Prefix
	Gateway     netip.Addr
	MTU, AdvMSS int  // bytes
	Priority    int  // the lower the better: RTA_PRIORITY
	Table       *int // the main one when nil
	Scope       *int // RT_SCOPE_*; IPv4 only
}

// Same says whether two routes are one.
func (r Route) Same(other Route) bool {
	equal := func(a, b *int) bool { return a == b || a != nil && b != nil && *a == *b }
	if !equal(r.Table, other.Table) || !equal(r.Scope, other.Scope) {
		return false
	}
	r.Table, r.Scope = other.Table, other.Scope
	return r == other
}

// AddRoute adds a route of the container, unless it is there already: the kernel would refuse
// it (EEXIST).
func (p *Port) AddRoute(r Route) {
	if !slices.ContainsFunc(p.Routes, r.Same) {
		p.Routes = append(p.Routes, r)
	}
}

// Metrics of linux/rtnetlink.h.
const (
	rtaxMTU    = 2 // RTAX_MTU
	rtaxAdvMSS = 8 // RTAX_ADVMSS
)

// String is where the route leads, and by which gateway.
func (r Route) String() string {
	if !r.Gateway.IsValid() {
		return r.Destination.String() + " on the link"
	}
	return r.Destination.String() + " via " + r.Gateway.String()
}

// addRoute adds a route through a link. One to the same destination by another gateway
// stays, such as the default route of another network: IPv4 takes the new one first
// (fib_table_insert in net/ipv4/fib_trie.c), IPv6 shares its flows between them
// (fib6_add_rt2node in net/ipv6/ip6_fib.c). The very same route is EEXIST. A gateway
// that no route leads to is ENETUNREACH, or EHOSTUNREACH for IPv6.
func (b *batch) addRoute(l link, r Route) {
	b.add("add route "+r.String(), routeRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, l, r, unix.RTPROT_BOOT))
}

// routeRequest is a message about a route through a link. protocol says who made the route.
func routeRequest(verb, flags int, l link, r Route, protocol uint8) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(verb, flags)
	msg := nl.NewRtMsg() // main table, unicast
	msg.Protocol = protocol
	msg.Family = uint8(familyOf(r.Destination.Addr()))
	msg.Dst_len = uint8(r.Destination.Bits())
	msg.Scope = unix.RT_SCOPE_LINK
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.RTA_DST, r.Destination.Addr().AsSlice()))
	req.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(l.index))))
	if r.Gateway.IsValid() {
		msg.Scope = unix.RT_SCOPE_UNIVERSE
		req.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, r.Gateway.AsSlice()))
	}
	if r.Scope != nil {
		msg.Scope = uint8(*r.Scope)
	}
	if r.Table != nil {
		msg.Table = unix.RT_TABLE_UNSPEC
		req.AddData(nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(uint32(*r.Table))))
	}
	if r.Priority != 0 {
		req.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(uint32(r.Priority))))
	}
	if r.MTU != 0 || r.AdvMSS != 0 {
		metrics := nl.NewRtAttr(unix.RTA_METRICS, nil)
		for metric, value := range map[int]int{rtaxMTU: r.MTU, rtaxAdvMSS: r.AdvMSS} {
			if value != 0 {
				metrics.AddRtAttr(metric, nl.Uint32Attr(uint32(value)))
			}
		}
		req.AddData(metrics)
	}
	return req
}

// UplinkMTU is the least MTU, in bytes, of the links that the host's default routes of
// either family leave by; 0 where it has none.
func (n *Namespace) UplinkMTU() (mtu int, err error) {
	library, err := n.library()
	if err != nil {
		return 0, err
	}
	for _, everywhere := range []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")} {
		routes, err := dump(func() ([]netlink.Route, error) {
			want := &netlink.Route{Dst: ipNet(everywhere), Table: unix.RT_TABLE_MAIN}
			return library.RouteListFiltered(familyOf(everywhere.Addr()), want, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return 0, fmt.Errorf("list default routes: %w", err)
		}
		for _, r := range routes {
			links := []int{r.LinkIndex}
			for _, hop := range r.MultiPath {
				links = append(links, hop.LinkIndex)
			}
			for _, index := range links {
				l, err := library.LinkByIndex(index)
				if err != nil {
					continue // a route of several next hops has none itself; or it is gone just now
				}
				if found := l.Attrs().MTU; mtu == 0 || found < mtu {
					mtu = found
				}
			}
		}
	}
	return mtu, nil
}

// hasRoute says whether the route is there, in whatever table: plugins that come
// after ours in a chain move routes (sbr).
func (n *Namespace) hasRoute(l link, r Route) (bool, error) {
	library, err := n.library()
	if err != nil {
		return false, err
	}
	found, err := dump(func() ([]netlink.Route, error) {
		want := &netlink.Route{Dst: ipNet(r.Destination)}
		return library.RouteListFiltered(familyOf(r.Destination.Addr()), want, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return false, fmt.Errorf("list routes: %w", err)
	}
	return slices.ContainsFunc(found, func(f netlink.Route) bool {
		// IPv6 has routes by several gateways as one.
		hops := append(f.MultiPath, &netlink.NexthopInfo{LinkIndex: f.LinkIndex, Gw: f.Gw})
		return slices.ContainsFunc(hops, func(h *netlink.NexthopInfo) bool {
			return h.LinkIndex == l.index && h.Gw.Equal(r.Gateway.AsSlice())
		})
	}), nil
}
