package kernel

import (
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// These values identify the objects of bridgeveth-node, the agent of a Kubernetes node: the
// protocol of its routes, and the name and the link group of its VXLAN device
// (cmd/bridgeveth-node/internal/kernel).
const (
	agentProtocol = 97
	Tunnel        = "bvx0"
	tunnelGroup   = 97
)

// HasAgent reports whether bridgeveth-node, the agent of a Kubernetes node, has added routes to the
// namespace. The routes stay when the agent ends.
func HasAgent(ns *setup.Namespace) bool {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		all, _ := routes(ns, family, unix.RT_TABLE_MAIN) // a family that cannot be listed has no routes
		if slices.ContainsFunc(all, func(r netlink.Route) bool { return r.Protocol == agentProtocol }) {
			return true
		}
	}
	return false
}

// NodeRoute is an entry of the routing table.
type NodeRoute struct {
	Range   netip.Prefix
	Gateway netip.Addr // not valid for a destination on the link
	Link    string     // "" if the route has several next hops
	Agent   bool       // the route has the protocol of bridgeveth-node
}

// String returns the route in the form of ip-route(8).
func (r NodeRoute) String() string {
	text := r.Range.String()
	if r.Gateway.IsValid() {
		text += " via " + r.Gateway.String()
	}
	if r.Link != "" {
		text += " dev " + r.Link
	}
	return text
}

// MatchingRoute returns the route in the routing tables that matches a packet. The parameters are
// those of RouteTo.
func MatchingRoute(ns *setup.Namespace, to, from netip.Addr, iif string) (r NodeRoute, err error) {
	found, err := lookUp(ns, to, from, netlink.RouteGetOptions{Iif: iif, FIBMatch: true})
	if err != nil {
		return r, err
	}
	r.Link, r.Agent = LinkName(ns, found.LinkIndex), found.Protocol == agentProtocol
	if found.Dst != nil {
		r.Range = Prefix(found.Dst)
	}
	gateway := found.Gw
	if via, ok := found.Via.(*netlink.Via); ok { // an IPv4 route with an IPv6 gateway
		gateway = via.Addr
	}
	if a, ok := netip.AddrFromSlice(gateway); ok {
		r.Gateway = a.Unmap()
	}
	return r, nil
}

// VXLAN describes a VXLAN device.
type VXLAN struct {
	Index, MTU, Port int
	Local            netip.Addr // the source address of the outer packets
	Up               bool
	Agent            bool // the device has the link group of bridgeveth-node
}

// FindVXLAN returns a VXLAN device by its name. The result found is false if there is no such
// device.
func FindVXLAN(ns *setup.Namespace, name string) (d VXLAN, found bool) {
	l, err := Link(ns, name)
	v, ok := l.(*netlink.Vxlan)
	if err != nil || !ok {
		return d, false
	}
	local, _ := netip.AddrFromSlice(v.SrcAddr)
	return VXLAN{v.Index, v.MTU, v.Port, local.Unmap(), v.Flags&net.FlagUp != 0, v.Attrs().Group == tunnelGroup}, true
}
