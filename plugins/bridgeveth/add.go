package bridgeveth

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// minIPv6MTU is the least that a link with IPv6 may have, in bytes: RFC 8200,
// section 5.
const minIPv6MTU = 1280

// add is the verb ADD (CNI specification 1.1.0, "ADD"). It refuses what it can
// before it touches anything, and takes back everything when a step fails.
func add(args *skel.CmdArgs) error {
	c, err := readConfig(args)
	if err != nil {
		return err
	}
	host, container, err := Namespaces(args)
	if err != nil {
		return Error(err)
	}
	defer host.Close()
	defer container.Close()
	port, previous, err := c.plan(args, host, container)
	if err != nil {
		return Error(err)
	}
	ipam, err := newDelegate(c, args, host)
	if err != nil {
		return err
	}
	return c.attach(host, port, previous, ipam)
}

// plan is the port that is to be, as far as it is known without its addresses, where
// nothing stands in its way, and the result of the plugin before in the list, if there is
// one.
func (c *config) plan(args *skel.CmdArgs, host *setup.Host, container *setup.Namespace) (port *setup.Port, previous *current.Result, err error) {
	if err := c.resolveMTU(host); err != nil {
		return nil, nil, err
	}
	port = c.port(args, container)
	previous, err = plugin.Previous(&c.PluginConf)
	if err == nil && previous != nil {
		err = c.accept(port, previous, args)
	}
	if err == nil {
		err = host.CheckAttachable(port)
	}
	return port, previous, err
}

// resolveMTU replaces "auto" by the number that it stands for.
func (c *config) resolveMTU(host *setup.Host) (err error) {
	if c.autoMTU {
		c.mtu, err = host.UplinkMTU()
	}
	return err
}

// attach reserves the addresses, attaches the port and prints the result. Where the IPAM plugin asks
// by the container's interface, the port comes first.
func (c *config) attach(host *setup.Host, port *setup.Port, previous *current.Result, ipam *delegate) (err error) {
	var undo setup.Undo
	defer func() {
		if err != nil {
			err = Error(errors.Join(err, undo.Run()))
		}
	}()

	var plugged *setup.Plugged
	connect := func() (err error) {
		if plugged, err = host.AttachPort(port); err == nil {
			undo.Push("attachment", func() error { return host.DetachPort(port.Attachment, c.Bridge, c.hostPorts...) })
		}
		return err
	}
	if c.asksByInterface() {
		c.fill(port, &current.Result{})
		if err := connect(); err != nil {
			return err
		}
		port.MAC = plugged.ContainerMAC
	}
	result, err := ipam.add()
	if !ipam.refused(err) {
		undo.Push("reservation of addresses", ipam.del) // also of those that a failed ADD of the delegate left
	}
	if err != nil {
		return err
	}
	if previous != nil {
		result = joined(previous, result)
	}
	if err := c.complete(result); err != nil {
		return err
	}
	c.fill(port, result)
	if err = Publish(port, c.hostPorts); err != nil {
		return err
	}
	if plugged == nil {
		err = connect()
	} else {
		err = host.AddAddresses(port)
	}
	if err != nil {
		return err
	}
	c.warn()
	c.describe(result, port, plugged)
	return plugin.PrintResult(result, c.CNIVersion)
}

// complete adds to the IPAM plugin's result what the configuration asks for:
// gateways, default routes, DNS.
func (c *config) complete(r *current.Result) error {
	if len(r.IPs) == 0 {
		if c.IPAM.Type != "" {
			return plugin.Errorf(plugin.CodeDelegate, "IPAM plugin %s gave no address", c.IPAM.Type)
		}
		if err := errors.Join(c.needsAddresses()...); err != nil {
			return plugin.Errorf(types.ErrInvalidNetworkConfig, "network %s: %w", c.Name, err)
		}
	}
	for _, ip := range r.IPs {
		if ip.Address.IP.To4() == nil && c.mtu != 0 && c.mtu < minIPv6MTU {
			return plugin.Errorf(types.ErrInvalidNetworkConfig, "mtu: %d is too little for %s; IPv6 needs %d", c.mtu, ip.Address.IP, minIPv6MTU)
		}
		if c.IsGateway && ip.Gateway == nil {
			if ip.Gateway = firstHost(ip.Address); ip.Gateway.Equal(ip.Address.IP) || !ip.Address.Contains(ip.Gateway) {
				return plugin.Errorf(types.ErrInvalidNetworkConfig,
					`isGateway: %s leaves no address for the gateway; set "gateway" for its range`, &ip.Address)
			}
		}
		if ip.Gateway != nil && (ip.Gateway.To4() == nil) != (ip.Address.IP.To4() == nil) {
			return plugin.Errorf(plugin.CodeDelegate, "IPAM plugin %s gave %s the gateway %s, which is of the other family", c.IPAM.Type, &ip.Address, ip.Gateway)
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

// needsAddresses lists what makes no sense without addresses.
func (c *config) needsAddresses() (bad []error) {
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"isGateway", c.IsGateway}, {"ipMasq", c.IPMasq}, {"ipspoofchk", c.IPSpoofCheck}, {"runtimeConfig.portMappings", len(c.hostPorts) > 0},
	} {
		if key.set {
			bad = append(bad, fmt.Errorf(`%s: it needs addresses, and there is none; set "ipam", or leave the key out`, key.name))
		}
	}
	if old, err := version.GreaterThan("0.3.0", c.CNIVersion); err == nil && old {
		bad = append(bad, fmt.Errorf(`cniVersion: a result of %s must hold an address; set "ipam", or use 0.3.0 or newer`, c.CNIVersion))
	}
	return bad
}

// firstHost is the address after that of the network.
func firstHost(n net.IPNet) net.IP {
	return plugin.Prefix(n).Masked().Addr().Next().AsSlice()
}

// withDefault adds a default route by gateway, unless one of its family is there
// already, in the main table. One that is there without a gateway gets this one.
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

// fill gives the port, and its network, what the result says.
func (c *config) fill(p *setup.Port, r *current.Result) {
	gateways := map[bool]netip.Addr{} // by "is IPv4"
	var outside []netip.Addr          // those of them that are in no subnet of the container's
	for _, ip := range r.IPs {
		address := plugin.Prefix(ip.Address)
		is4 := address.Addr().Is4()
		p.Addresses = append(p.Addresses, address)
		p.Network.IPv4 = p.Network.IPv4 || is4
		p.Network.IPv6 = p.Network.IPv6 || !is4
		if subnet := address.Masked(); c.IPMasq && !slices.Contains(p.Network.Masquerade, subnet) {
			p.Network.Masquerade = append(p.Network.Masquerade, subnet)
		}
		gateway, ok := netip.AddrFromSlice(ip.Gateway)
		if !ok {
			continue
		}
		gateway = gateway.Unmap()
		if !gateways[is4].IsValid() {
			gateways[is4] = gateway
		}
		g := netip.PrefixFrom(gateway, address.Bits())
		if !address.Contains(gateway) {
			g = netip.PrefixFrom(gateway, gateway.BitLen())
			outside = append(outside, gateway)
			if c.IsGateway {
				p.Network.OnLink = append(p.Network.OnLink, address)
			}
		}
		if c.IsGateway && !slices.Contains(p.Network.Gateways, g) {
			p.Network.Gateways = append(p.Network.Gateways, g)
		}
	}
	for _, r := range r.Routes {
		route := setup.Route{
			Destination: plugin.Prefix(r.Dst), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Table: r.Table, Scope: r.Scope,
		}
		if gateway, ok := netip.AddrFromSlice(r.GW); ok {
			route.Gateway = gateway.Unmap()
		} else {
			route.Gateway = gateways[route.Destination.Addr().Is4()]
		}
		if slices.Contains(outside, route.Gateway) && (route.Gateway.Is4() || !route.Gateway.IsLinkLocalUnicast()) {
			p.AddRoute(setup.Route{Destination: netip.PrefixFrom(route.Gateway, route.Gateway.BitLen())})
		}
		p.AddRoute(route)
	}
	if len(r.IPs) == 0 || p.Autoconfigured { // frames of either family
		p.Network.IPv4, p.Network.IPv6 = true, p.Container.HasIPv6()
	}
}

// warn says on standard error what forward: sysctl does besides.
func (c *config) warn() {
	if c.forward == setup.ForwardSysctl {
		fmt.Fprintf(os.Stderr, `bridgeveth: network %s: "forward": "sysctl" takes the bridged packets of every bridge on this host past iptables; `+
			"Docker's isolation of containers and Kubernetes' services on the same node may need them there\n", c.Name)
	}
}

// describe puts the interfaces into the result.
func (c *config) describe(r *current.Result, p *setup.Port, done *setup.Plugged) {
	r.CNIVersion = current.ImplementedSpecVersion
	bridge := &current.Interface{Name: c.Bridge, Mac: done.BridgeMAC.String(), Mtu: done.BridgeMTU}
	if p.ExistingLink != "" {
		r.Interfaces = append(r.Interfaces, bridge)
	} else {
		r.Interfaces = []*current.Interface{
			bridge,
			{Name: p.Port(), Mac: done.PortMAC.String(), Mtu: done.MTU},
			{Name: p.Interface, Mac: done.ContainerMAC.String(), Mtu: done.MTU, Sandbox: p.Container.Path},
		}
		for _, ip := range r.IPs {
			ip.Interface = current.Int(len(r.Interfaces) - 1)
		}
	}
	if routed := p.Network.RoutedBy(); routed != c.Bridge { // a VLAN link has what it is on
		r.Interfaces = append(r.Interfaces, &current.Interface{Name: routed, Mac: done.BridgeMAC.String(), Mtu: done.BridgeMTU})
	}
}
