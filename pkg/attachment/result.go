package attachment

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// minIPv6MTU is the smallest MTU of a link with IPv6, in bytes (RFC 8200, section 5).
const minIPv6MTU = 1280

// CompleteResult adds the gateways, default routes and DNS settings of the configuration to the
// result of the IPAM plugin.
func (c *Config) CompleteResult(r *current.Result) error {
	if len(r.IPs) == 0 {
		if c.IPAM.Type != "" {
			return plugin.Errorf(plugin.CodeDelegate, "IPAM plugin %s returned no address", c.IPAM.Type)
		}
		if err := errors.Join(c.needsAddresses()...); err != nil {
			return plugin.Errorf(types.ErrInvalidNetworkConfig, "network %s: %w", c.Name, err)
		}
	}
	for _, ip := range r.IPs {
		if ip.Address.IP.To4() == nil && c.mtu != 0 && c.mtu < minIPv6MTU {
			return plugin.Errorf(types.ErrInvalidNetworkConfig, "mtu: %d is too small for %s; IPv6 needs %d", c.mtu, ip.Address.IP, minIPv6MTU)
		}
		if c.IsGateway && ip.Gateway == nil {
			if ip.Gateway = firstHost(ip.Address); ip.Gateway.Equal(ip.Address.IP) || !ip.Address.Contains(ip.Gateway) {
				return plugin.Errorf(types.ErrInvalidNetworkConfig,
					`isGateway: %s has no address for the gateway; set "gateway" for its range`, &ip.Address)
			}
		}
		if ip.Gateway != nil && (ip.Gateway.To4() == nil) != (ip.Address.IP.To4() == nil) {
			return plugin.Errorf(plugin.CodeDelegate, "IPAM plugin %s returned for %s the gateway %s, which is of the other address family", c.IPAM.Type, &ip.Address, ip.Gateway)
		}
		if c.IsDefaultGateway {
			r.Routes = withDefault(r.Routes, ip.Gateway)
		}
	}
	if !c.DNS.IsEmpty() {
		r.DNS = c.DNS
	}
	return nil
}

// needsAddresses returns an error for each key that is set and that needs addresses. It is called
// if the network has no addresses.
func (c *Config) needsAddresses() (bad []error) {
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"isGateway", c.IsGateway}, {"ipMasq", c.IPMasq}, {"ipspoofchk", c.guard() == setup.GuardIP}, {"runtimeConfig.portMappings", len(c.hostPorts) > 0},
	} {
		if key.set {
			bad = append(bad, fmt.Errorf(`%s: it needs addresses, and the network has none; set "ipam", or leave the key out`, key.name))
		}
	}
	if old, err := version.GreaterThan("0.3.0", c.CNIVersion); err == nil && old {
		bad = append(bad, fmt.Errorf(`cniVersion: a result of %s must have an address; set "ipam", or use 0.3.0 or newer`, c.CNIVersion))
	}
	return bad
}

// firstHost returns the first address after the network address of a subnet.
func firstHost(n net.IPNet) net.IP {
	return plugin.Prefix(n).Masked().Addr().Next().AsSlice()
}

// withDefault adds a default route with the given gateway to a list of routes, and returns the
// list. If the list already has a default route of the same family in the main table, withDefault
// adds no route. If that route has no gateway, withDefault sets its gateway.
func withDefault(routes []*types.Route, gateway net.IP) []*types.Route {
	all := net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if gateway.To4() == nil {
		all = net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	for _, r := range routes {
		main := r.Table == nil || *r.Table == unix.RT_TABLE_UNSPEC || *r.Table == unix.RT_TABLE_MAIN
		if main && r.Dst.String() == all.String() {
			if r.GW == nil {
				r.GW = gateway
			}
			return routes
		}
	}
	return append(routes, &types.Route{Dst: all, GW: gateway})
}

// AddResult adds the addresses, routes and gateways in the result r to the port p and to its
// network.
func (c *Config) AddResult(p *setup.Port, r *current.Result) { addResult(p, r, c.IsGateway, c.IPMasq) }

func addResult(p *setup.Port, r *current.Result, isGateway, masquerade bool) {
	var outside []netip.Addr // gateways outside of the subnets of the container's addresses
	for _, ip := range r.IPs {
		address := plugin.Prefix(ip.Address)
		is4 := address.Addr().Is4()
		p.Addresses = append(p.Addresses, address)
		p.Network.IPv4 = p.Network.IPv4 || is4
		p.Network.IPv6 = p.Network.IPv6 || !is4
		if subnet := address.Masked(); masquerade && !slices.Contains(p.Network.Masquerade, subnet) {
			p.Network.Masquerade = append(p.Network.Masquerade, subnet)
		}
		gateway := plugin.Addr(ip.Gateway)
		if !gateway.IsValid() {
			continue
		}
		g := netip.PrefixFrom(gateway, address.Bits())
		if !address.Contains(gateway) {
			g = netip.PrefixFrom(gateway, gateway.BitLen())
			outside = append(outside, gateway)
			if isGateway {
				p.Network.OnLink = append(p.Network.OnLink, address)
			}
		}
		if isGateway && !slices.Contains(p.Network.Gateways, g) {
			p.Network.Gateways = append(p.Network.Gateways, g)
		}
	}
	for _, route := range Routes(r) {
		if slices.Contains(outside, route.Gateway) && (route.Gateway.Is4() || !route.Gateway.IsLinkLocalUnicast()) {
			p.AddRoute(setup.Route{Destination: netip.PrefixFrom(route.Gateway, route.Gateway.BitLen())})
		}
		p.AddRoute(route)
	}
	// The container may have addresses that are not in the result, so the network needs both
	// families.
	if len(r.IPs) == 0 || p.Autoconfigured {
		p.Network.IPv4, p.Network.IPv6 = true, p.Container.HasIPv6()
	}
}

// Routes returns the routes in a result. A route without a gateway gets the gateway of the first
// address of its family (CNI specification 1.1.0, "routes").
func Routes(r *current.Result) (routes []setup.Route) {
	gateways := map[bool]netip.Addr{} // the key is true for IPv4
	for _, ip := range r.IPs {
		is4 := plugin.Addr(ip.Address.IP).Is4()
		gateways[is4] = cmp.Or(gateways[is4], plugin.Addr(ip.Gateway))
	}
	for _, route := range r.Routes {
		dst := plugin.Prefix(route.Dst)
		routes = append(routes, setup.Route{
			Destination: dst, Gateway: cmp.Or(plugin.Addr(route.GW), gateways[dst.Addr().Is4()]),
			MTU: route.MTU, AdvMSS: route.AdvMSS, Priority: route.Priority, Table: route.Table, Scope: route.Scope,
		})
	}
	return routes
}

// expect sets the MTU and the MAC of the port to the values in the result of ADD, so that CHECK
// compares with them. These values may differ from the configuration. ADD may have taken the MTU
// from the uplink or from the bridge. A plugin after bridgeveth, such as tuning, may have changed
// the MAC of the container's interface.
func (c *Config) expect(p *setup.Port, r *current.Result) {
	for _, i := range r.Interfaces {
		switch mac, err := net.ParseMAC(i.Mac); {
		case i.Name == p.Port():
			p.MTU = cmp.Or(i.Mtu, c.mtu, setup.AnyMTU) // results before CNI 1.1.0 have no MTU
		case i.Name == p.Interface && i.Sandbox != "" && err == nil:
			p.MAC = mac
		}
	}
}

// ownResult returns a copy of a result without the addresses of other interfaces. Other plugins of
// the list may have added such addresses. The parameter ifname is the container's interface.
func ownResult(r *current.Result, ifname string) *current.Result {
	own := *r
	own.IPs = slices.DeleteFunc(slices.Clone(r.IPs), func(ip *current.IPConfig) bool {
		i := ip.Interface
		return i != nil && (*i < 0 || *i >= len(r.Interfaces) || r.Interfaces[*i].Name != ifname)
	})
	return &own
}
