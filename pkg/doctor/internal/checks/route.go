package checks

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// CheckRoute checks a container's route from its own address to another one, and the neighbour entry of the next
// hop.
func (p *Path) CheckRoute(e *End, from, to netip.Addr) {
	station := "route of " + e.Name
	if _, err := kernel.Link(e.Namespace, e.Interface); err != nil {
		return // CheckInterface has said so
	}
	r, err := kernel.RouteTo(e.Namespace, to, from, "")
	if err != nil {
		p.addNoRoute(station, e, to, err)
		return
	}
	next := to
	switch {
	case r.Type != "":
		p.Advise(station, e.Command("ip %s route del %s %s", familyOption(to), r.Type, to), "%s is not reached by a %s route", to, r.Type)
		return
	case r.Link != e.Interface:
		p.Note(station, "%s is reached by another interface than %s", to, e.Interface)
		return
	case r.Gateway.IsValid():
		next = r.Gateway
		if p.holders[next] == nil && e.inSubnet(next) {
			if !p.isRouterBeyond(station, e, to, next) {
				return
			}
			p.Routed = p.Routed && e != p.A // that router routes, not the host
		}
		p.Good(station, "to %s by %s", to, next)
	case p.Routed:
		p.Advise(station, "look at the prefix of its address and at its routes", "%s is looked for on the link, and is not there", to)
		return
	default:
		p.Good(station, "to %s on the link", to)
	}
	p.checkNeighbour(e, next)
}

// isRouterBeyond reports whether a gateway that no link of the host and its containers has is a router on the LAN
// that the bridge is a part of, as ADD gave it to the container. If not, it adds what is wrong.
func (p *Path) isRouterBeyond(station string, e *End, to, gateway netip.Addr) bool {
	given := e.givenRoute(to)
	switch {
	case given.Gateway == gateway && e.lacksGateway(gateway):
		p.Bad(station, "bvctl repair", "by %s, which nobody has: bridge %s lost its address", gateway, e.Bridge)
	case given.Gateway == gateway:
		return true
	case given.Destination.IsValid():
		p.Bad(station, e.routeCommand("replace", given), "by %s, which nobody has; it was given %s", gateway, given)
	default:
		p.Advise(station, "run bvctl repair if it was the bridge's; or it is another router's: is that up, and on bridge "+e.Bridge+"?", "by %s, which nobody on this host has", gateway)
	}
	return false
}

// addNoRoute adds a route that the container does not have, with the command that restores it if ADD made
// it.
func (p *Path) addNoRoute(station string, e *End, to netip.Addr, err error) {
	given := e.givenRoute(to)
	switch {
	case !errors.Is(err, unix.ENETUNREACH):
		p.Advise(station, "look at "+e.Command("ip %s route show table all", familyOption(to))+", and at "+e.Command("ip %s rule", familyOption(to)), "no way to %s: %s", to, kernel.Reason(err))
	case given.Destination.IsValid():
		toGateway := setup.Route{Destination: netip.PrefixFrom(given.Gateway, given.Gateway.BitLen())}
		if e.lacksRoute(toGateway.String()) { // the kernel refuses the other route without this one
			p.Bad(station, e.routeCommand("add", toGateway), "it has none to its gateway %s", given.Gateway)
		}
		p.Bad(station, e.routeCommand("add", given), "it has none to %s: that to %s is gone", to, given.Destination)
	default:
		p.Advise(station, `if the network is to have a default route, give it "isDefaultGateway": true, and make the container again`, "it has none to %s", to)
	}
}

// routeCommand returns a command that adds or replaces a route of the container.
func (e *End) routeCommand(verb string, r setup.Route) string {
	to := r.Destination.Masked()
	if !r.Gateway.IsValid() {
		return e.Command("ip %s route %s %s dev %s", familyOption(to.Addr()), verb, to, e.Interface)
	}
	return e.Command("ip %s route %s %s via %s dev %s", familyOption(to.Addr()), verb, to, r.Gateway, e.Interface)
}
