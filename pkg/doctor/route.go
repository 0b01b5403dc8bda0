package doctor

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// way looks at a container's route to an address, and at the neighbour that it leads by.
func (w *walk) way(e *End, from, to netip.Addr) {
	station := "route of " + e.Name
	var routes []netlink.Route
	var link netlink.Link
	err := e.Namespace.Do(func() (err error) {
		if link, err = netlink.LinkByName(e.Interface); err != nil {
			return err
		}
		routes, err = netlink.RouteGetWithOptions(to.AsSlice(), &netlink.RouteGetOptions{SrcAddr: from.AsSlice()})
		return err
	})
	if link == nil {
		return // said already
	}
	if err != nil || len(routes) == 0 {
		w.noRoute(station, e, to, err)
		return
	}
	r := routes[0]
	hop, _ := netip.AddrFromSlice(r.Gw)
	hop = hop.Unmap()
	switch {
	case routeType(r.Type) != "":
		w.sad(station, e.in("ip %s route del %s %s", familyFlag(to), routeType(r.Type), to), "%s is not reached by a %s route", to, routeType(r.Type))
		return
	case r.LinkIndex != link.Attrs().Index:
		w.note(station, "%s is reached by another interface than %s", to, e.Interface)
		return
	case hop.IsValid():
		if w.holders[hop] == nil && w.inSubnet(e, hop) {
			if !w.beyondBridge(station, e, to, hop) {
				return
			}
			w.routed = w.routed && e != w.a // by that router, not by the host
		}
		w.good(station, "to %s by %s", to, hop)
	case w.routed:
		w.sad(station, "look at the prefix of its address and at its routes", "%s is looked for on the link, and is not there", to)
		return
	default:
		w.good(station, "to %s on the link", to)
		hop = to
	}
	w.neighbour(e, link, hop)
}

// inSubnet says whether an address is within one of the container's own.
func (w *walk) inSubnet(e *End, a netip.Addr) bool {
	return slices.ContainsFunc(e.Addresses, func(p netip.Prefix) bool { return p.Contains(a) })
}

// beyondBridge says whether a next hop that nobody on this host has is a router that the
// container was given, elsewhere on the LAN that its bridge is a part of. Or else it says
// what is to be done about it.
func (w *walk) beyondBridge(station string, e *End, to, hop netip.Addr) bool {
	given := e.given(to)
	switch {
	case given.Gateway == hop && e.lacksGateway(hop):
		w.bad(station, "bvctl repair", "by %s, which nobody has: bridge %s lost its address", hop, e.Bridge)
	case given.Gateway == hop:
		return true
	case given.Destination.IsValid():
		w.bad(station, e.route("replace", given), "by %s, which nobody has; it was given %s", hop, given)
	default:
		w.sad(station, "run bvctl repair if it was the bridge's; or it is another router's: is that up, and on bridge "+e.Bridge+"?", "by %s, which nobody on this host has", hop)
	}
	return false
}

// noRoute says what is to be done about a route that a container does not have: it is put
// back if ADD had made it.
func (w *walk) noRoute(station string, e *End, to netip.Addr, err error) {
	given := e.given(to)
	switch {
	case err != nil && !errors.Is(err, unix.ENETUNREACH):
		w.sad(station, "look at "+e.in("ip %s route show table all", familyFlag(to))+", and at "+e.in("ip %s rule", familyFlag(to)), "no way to %s: %s", to, routeError(err))
	case given.Destination.IsValid():
		toGateway := setup.Route{Destination: netip.PrefixFrom(given.Gateway, given.Gateway.BitLen())}
		if e.lacksInside("route " + toGateway.String()) { // the kernel refuses the other without it
			w.bad(station, e.route("add", toGateway), "it has none to its gateway %s", given.Gateway)
		}
		w.bad(station, e.route("add", given), "it has none to %s: that to %s is gone", to, given.Destination)
	default:
		w.sad(station, `if the network is to have a default route, give it "isDefaultGateway": true, and make the container again`, "it has none to %s", to)
	}
}

// given is the route to an address that the container was given, the narrowest of several;
// its Destination is not valid if there is none.
func (e *End) given(to netip.Addr) (narrowest setup.Route) {
	for _, r := range e.Routes {
		if r.Destination.Contains(to) && r.Destination.Bits() > narrowest.Destination.Bits() {
			narrowest = r
		}
	}
	return narrowest
}

// route is a command that adds or replaces a route of a container.
func (e *End) route(verb string, r setup.Route) string {
	to := r.Destination.Masked()
	if !r.Gateway.IsValid() {
		return e.in("ip %s route %s %s dev %s", familyFlag(to.Addr()), verb, to, e.Interface)
	}
	return e.in("ip %s route %s %s via %s dev %s", familyFlag(to.Addr()), verb, to, r.Gateway, e.Interface)
}

// neighbour compares what a container believes to be a neighbour's MAC with what it is.
func (w *walk) neighbour(e *End, link netlink.Link, hop netip.Addr) {
	station := "neighbour of " + e.Name
	var all []netlink.Neigh
	err := e.Namespace.Do(func() (err error) {
		all, err = dump(here.NeighList, link.Attrs().Index, familyOf(hop))
		return err
	})
	if err != nil {
		w.note(station, "%v", err)
		return
	}
	if n, want := wrong(all, hop, w.macOf(hop)); n != nil {
		w.bad(station, e.in("ip neigh del %s dev %s", hop, e.Interface), "it takes %s for %s, which has %s", n.HardwareAddr, hop, want)
		return
	}
	w.good(station, "nothing wrong is remembered of %s", hop)
}

// wrong is what is remembered of an address, if that is another MAC than its own. Nobody
// knows that of who is beyond the host.
func wrong(all []netlink.Neigh, hop netip.Addr, want net.HardwareAddr) (*netlink.Neigh, net.HardwareAddr) {
	for _, n := range all {
		a, _ := netip.AddrFromSlice(n.IP)
		if a.Unmap() == hop && len(n.HardwareAddr) > 0 && want != nil && n.HardwareAddr.String() != want.String() {
			return &n, want
		}
	}
	return nil, nil
}

// macOf is the MAC of who has an address: of a container, or else of the host.
func (w *walk) macOf(a netip.Addr) net.HardwareAddr {
	var mac net.HardwareAddr
	for _, h := range w.holders[a] {
		if h.end != nil && h.end.Interface == h.link && slices.ContainsFunc(h.end.Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return h.mac
		}
		if h.end == nil {
			mac = h.mac
		}
	}
	return mac
}

// routeError says why the kernel finds no route (net/ipv4/route.c, net/ipv6/ip6_fib.c).
func routeError(err error) string {
	switch {
	case errors.Is(err, unix.EINVAL):
		return "a blackhole route is in the way"
	case errors.Is(err, unix.EACCES):
		return "a prohibit route or rule is in the way"
	case errors.Is(err, unix.EHOSTUNREACH):
		return "an unreachable route or rule is in the way"
	case errors.Is(err, unix.ENETUNREACH) || err == nil:
		return "no route leads there"
	}
	return err.Error()
}

// routeType names what is not for packets to go by (ip-route(8)).
func routeType(kind int) string {
	return map[int]string{unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw"}[kind]
}
