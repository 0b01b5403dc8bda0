package checks

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// CheckRoute checks the container's route for packets with this source and destination, and the
// neighbour entry of the next hop.
func (p *Path) CheckRoute(e *End, from, to netip.Addr) {
	station := "route of " + e.Name
	if _, err := p.Link(e.Namespace, e.Interface); err != nil {
		return // CheckInterface has reported this
	}
	r, err := kernel.RouteTo(e.Namespace, to, from, "")
	if err != nil {
		p.addNoRoute(station, e, to, err)
		return
	}
	next := to
	switch {
	case r.Type != "":
		p.Advise(station, e.Command("ip %s route del %s %s", familyOption(to), r.Type, to), "a %s route drops packets to %s", r.Type, to)
		return
	case r.Link != e.Interface:
		p.Note(station, "packets to %s leave by another interface than %s", to, e.Interface)
		return
	case r.Gateway.IsValid():
		next = r.Gateway
		if p.holders[next] == nil && e.inSubnet(next) {
			if !p.isRouterBeyond(station, e, to, next) {
				return
			}
			p.Routed = p.Routed && e != p.A // if A sends to a router, the host does not route the packet
		}
		p.Good(station, "to %s via %s", to, next)
	case p.Routed:
		p.Advise(station, "check the prefix of the container's address, and its routes", "the container takes %s for a neighbour, but it is on another link", to)
		return
	default:
		p.Good(station, "to %s on the link", to)
	}
	p.checkNeighbour(e, next)
}

// isRouterBeyond reports whether a gateway is a router on the bridge's LAN. The caller has found
// that neither the host nor a container has the gateway's address. isRouterBeyond returns true if
// ADD made a route through this gateway, and did not add the gateway's address to the bridge.
// Otherwise it adds a bad station and returns false.
func (p *Path) isRouterBeyond(station string, e *End, to, gateway netip.Addr) bool {
	given := e.givenRoute(to)
	switch {
	case given.Gateway == gateway && e.lacksGateway(gateway):
		p.Bad(station, "bvctl repair", "via %s, which no host has: the address is missing on bridge %s", gateway, e.Bridge)
	case given.Gateway == gateway:
		return true
	case given.Destination.IsValid():
		p.Bad(station, e.routeCommand("replace", given), "via %s, which no host has; ADD gave the container the route %s", gateway, given)
	default:
		p.Advise(station, "if this should be an address of bridge "+e.Bridge+", run bvctl repair; if it is another router, check that it is up and on the bridge", "via %s, which neither the host nor a container has", gateway)
	}
	return false
}

// addNoRoute adds a station for a missing route of the container. If ADD made the route, the
// station has the command that restores the route.
func (p *Path) addNoRoute(station string, e *End, to netip.Addr, err error) {
	given := e.givenRoute(to)
	switch {
	case !errors.Is(err, unix.ENETUNREACH):
		p.Advise(station, "check "+e.Command("ip %s route show table all", familyOption(to))+" and "+e.Command("ip %s rule", familyOption(to)), "no route to %s: %s", to, kernel.Reason(err))
	case given.Destination.IsValid():
		if e.lacksRouteTo(given.Gateway) { // without a route to the gateway, the kernel has no route through the gateway
			toGateway := setup.Route{Destination: netip.PrefixFrom(given.Gateway, given.Gateway.BitLen())}
			p.Bad(station, e.routeCommand("add", toGateway), "no route to the gateway %s", given.Gateway)
		}
		p.Bad(station, e.routeCommand("add", given), "no route to %s: the route to %s is missing", to, given.Destination)
	default:
		p.Advise(station, `if the network should have a default route, set "isDefaultGateway": true and create the container again`, "no route to %s", to)
	}
}

// routeCommand returns the command "ip route VERB" for a route of the container. The verb is "add"
// or "replace".
func (e *End) routeCommand(verb string, r setup.Route) string {
	to := r.Destination.Masked()
	if !r.Gateway.IsValid() {
		return e.Command("ip %s route %s %s dev %s", familyOption(to.Addr()), verb, to, e.Interface)
	}
	return e.Command("ip %s route %s %s via %s dev %s", familyOption(to.Addr()), verb, to, r.Gateway, e.Interface)
}
