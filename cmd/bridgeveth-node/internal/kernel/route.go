package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// path is the gateway and link of a route.
type path struct {
	gateway netip.Addr
	link    int
}

// markMetric is the metric of the agent's unreachable routes (see applyMark). The pods' bridge has
// a route to the same range with metric 0 or 256. The kernel prefers that route, because a lower
// metric comes first.
const markMetric = 65535

// applyRoutes corrects the routes to the ranges of other nodes. tunnel is the index of the VXLAN
// device, or 0 if there is none. applyRoutes adds no route if another program has already added a
// route to the range with the same gateway and link.
func (h *Host) applyRoutes(routes []cluster.Route, tunnel int, present *table) ([]string, error) {
	index, names := map[string]int{cluster.TunnelLink: tunnel}, map[int]string{tunnel: cluster.TunnelLink}
	wanted := map[netip.Prefix]path{}
	for _, r := range routes {
		if _, known := index[r.Link]; !known {
			l, err := h.nl.LinkByName(r.Link)
			if err != nil {
				return nil, fmt.Errorf("find link %s: %w", r.Link, err)
			}
			index[r.Link], names[l.Attrs().Index] = l.Attrs().Index, r.Link
		}
		if index[r.Link] != 0 { // if the link is the missing tunnel, the error about the tunnel is sufficient
			wanted[r.Range] = path{r.Gateway, index[r.Link]}
		}
	}
	for r, p := range wanted {
		if _, isOwn := present.own[r]; !isOwn && present.others[r] == p {
			delete(wanted, r)
		}
	}
	set := func(r netip.Prefix, p path) error {
		route := request(r, p)
		if p.link == tunnel {
			route.Flags = int(netlink.FLAG_ONLINK)
		}
		was, changed := present.own[r]
		if changed && (p.link != tunnel || r.Addr().Is4()) {
			return h.nl.RouteReplace(route)
		}
		// The old route leads to the new gateway, because this gateway is an address in the range.
		// The kernel refuses an IPv6 gateway with the flag onlink if a route through another link
		// leads to the gateway (ip6_route_check_nh_onlink in net/ipv6/route.c). Therefore delete
		// the old route first.
		if changed {
			if err := absent(h.nl.RouteDel(request(r, was))); err != nil {
				return err
			}
		}
		err := h.nl.RouteAdd(route)
		if errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("another route to this range exists, which the agent did not make; look at it with \"ip route show %v\" and delete it", r)
		}
		return err
	}
	remove := func(r netip.Prefix, p path) error { return absent(h.nl.RouteDel(request(r, p))) }
	say := func(r netip.Prefix, p path) string {
		if names[p.link] == "" {
			return fmt.Sprintf("route %v via %v", r, p.gateway)
		}
		return fmt.Sprintf("route %v via %v dev %s", r, p.gateway, names[p.link])
	}
	return converge(wanted, present.own, set, remove, say)
}

// applyMark corrects the routes of type unreachable: one for each pod range of the node. Apply
// calls applyMark only after all its other steps have succeeded, and a reboot deletes the routes.
// So if these routes exist, Apply has succeeded since the last boot (see Complete). The routes also
// stop packets to a pod that has ended. Without them, such packets would follow the default route
// and circle between the nodes.
func (h *Host) applyMark(ranges []netip.Prefix, present map[netip.Prefix]path) ([]string, error) {
	wanted := map[netip.Prefix]path{}
	for _, r := range ranges {
		wanted[r] = path{}
	}
	set := func(r netip.Prefix, _ path) error { return h.nl.RouteAdd(mark(r)) }
	remove := func(r netip.Prefix, _ path) error { return absent(h.nl.RouteDel(mark(r))) }
	say := func(r netip.Prefix, _ path) string { return fmt.Sprintf("route unreachable %v", r) }
	return converge(wanted, present, set, remove, say)
}

// Complete reports whether Apply has succeeded since the last boot, that is, whether the routes of
// applyMark exist.
func (h *Host) Complete() (bool, error) {
	present, err := h.routes()
	return err == nil && len(present.marks) > 0, err
}

// table holds the routes of the main routing table. The key of each map is the destination.
type table struct {
	own    map[netip.Prefix]path // the agent's routes to ranges of other nodes
	marks  map[netip.Prefix]path // the routes that applyMark adds
	others map[netip.Prefix]path // unicast routes of other programs
}

// routes reads the main routing table.
func (h *Host) routes() (*table, error) {
	t := &table{map[netip.Prefix]path{}, map[netip.Prefix]path{}, map[netip.Prefix]path{}}
	return t, h.each(func(r netlink.Route) {
		switch {
		case r.Dst == nil:
		case r.Protocol == protocol && r.Type == unix.RTN_UNREACHABLE:
			t.marks[prefixOf(r.Dst)] = path{}
		case r.Protocol == protocol:
			t.own[prefixOf(r.Dst)] = pathOf(r)
		case r.Type == unix.RTN_UNICAST && len(r.MultiPath) == 0:
			t.others[prefixOf(r.Dst)] = pathOf(r)
		}
	})
}

// each calls f with every route of the main routing table.
func (h *Host) each(f func(netlink.Route)) error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := setup.Dump(func() ([]netlink.Route, error) {
			return h.nl.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			f(r)
		}
	}
	return nil
}

func pathOf(r netlink.Route) path {
	p := path{link: r.LinkIndex, gateway: addrOf(r.Gw)}
	if via, ok := r.Via.(*netlink.Via); ok {
		p.gateway = addrOf(via.Addr)
	}
	return p
}

// request returns the request for a route of the agent to range r.
func request(r netip.Prefix, p path) *netlink.Route {
	route := &netlink.Route{Dst: ipNet(r), LinkIndex: p.link, Protocol: protocol, Table: unix.RT_TABLE_MAIN}
	switch {
	case !p.gateway.IsValid(): // another program has changed the route
	case r.Addr().Is4() && p.gateway.Is6():
		route.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: net.IP(p.gateway.AsSlice())}
	default:
		route.Gw = p.gateway.AsSlice()
	}
	return route
}

func mark(r netip.Prefix) *netlink.Route {
	return &netlink.Route{Dst: ipNet(r), Type: unix.RTN_UNREACHABLE, Protocol: protocol, Priority: markMetric, Table: unix.RT_TABLE_MAIN}
}
