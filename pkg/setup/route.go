package setup

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is a route of a container, in its main table. An invalid Gateway means
// that the destination is on the link.
type Route struct {
	Destination netip.Prefix
	Gateway     netip.Addr
}

func (r Route) String() string {
	if !r.Gateway.IsValid() {
		return r.Destination.String() + " on the link"
	}
	return r.Destination.String() + " via " + r.Gateway.String()
}

// addRoute adds a route through link; one that is there already is left. A
// gateway that no route leads to is an error of the kernel's: ENETUNREACH, or
// EHOSTUNREACH for IPv6.
func (n *Namespace) addRoute(link netlink.Link, r Route) error {
	err := n.nl.RouteAdd(r.toLibrary(link))
	if err == nil || errors.Is(err, unix.EEXIST) {
		return nil
	}
	return fmt.Errorf("add route %s: %w", r, err)
}

// hasRoute says whether the route is there, in whatever table: plugins that come
// after ours in a chain move routes (sbr).
func (n *Namespace) hasRoute(link netlink.Link, r Route) (bool, error) {
	want := r.toLibrary(link)
	found, err := dump(func() ([]netlink.Route, error) {
		return n.nl.RouteListFiltered(familyOf(r.Destination.Addr()), want,
			netlink.RT_FILTER_OIF|netlink.RT_FILTER_DST|netlink.RT_FILTER_GW|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return false, fmt.Errorf("list routes: %w", err)
	}
	return len(found) > 0, nil
}

func (r Route) toLibrary(link netlink.Link) *netlink.Route {
	out := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r.Destination), Scope: netlink.SCOPE_LINK}
	if r.Gateway.IsValid() {
		out.Gw = r.Gateway.AsSlice()
		out.Scope = netlink.SCOPE_UNIVERSE
	}
	return out
}
