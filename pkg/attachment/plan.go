package attachment

import (
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Of returns an attachment: the network, and the container and the interface from the arguments of
// a CNI call.
func Of(network string, args *skel.CmdArgs) setup.Attachment {
	return setup.Attachment{Network: network, Container: args.ContainerID, Interface: args.IfName}
}

// ResolveMTU replaces the MTU "auto" by the MTU of the host's uplink. It must be called before the
// method Port.
func (c *Config) ResolveMTU(host *setup.Host) (err error) {
	if c.autoMTU {
		c.mtu, err = host.UplinkMTU()
	}
	return err
}

// Port returns the plan of the attachment without its addresses and host ports. AddResult and
// AddHostPorts add them.
func (c *Config) Port(args *skel.CmdArgs, container *setup.Namespace) *setup.Port {
	sysctls := map[string]string{}
	for key, value := range c.Sysctl {
		sysctls[strings.TrimPrefix(sysctlPath(key, args.IfName), "net/")] = strings.Join(strings.Fields(value), " ")
	}
	return &setup.Port{
		Attachment: Of(c.Name, args), Container: container,
		Network: c.network(), MTU: c.mtu, MAC: c.mac,
		// A container needs hairpin mode to reach its own host ports.
		Hairpin:  c.HairpinMode || len(c.hostPorts) > 0 && !c.PromiscMode,
		Isolated: c.PortIsolation || c.ingress == setup.IngressIsolated,
		Guard:    c.guard(), GuardDefault: c.MACSpoofCheck == nil && c.IPSpoofCheck == nil, BPDUGuard: c.guard() != setup.GuardNone,
		Bandwidth: c.bandwidth,
		Sysctls:   sysctls, DetectDuplicates: c.EnableDAD, Autoconfigured: c.autoconfigured(), Down: c.DisableContainerInterface,
	}
}

// ForgetConnections deletes the conntrack entries of the container's addresses in prevResult. DEL
// calls ForgetConnections before it frees the addresses. Otherwise the fast path would send packets
// of old connections to the next container with one of these addresses. For a network without a
// fast path, ForgetConnections does nothing.
func (c *Config) ForgetConnections(host *setup.Host) error {
	if c.fastPath == setup.FastPathOff {
		return nil
	}
	previous, err := plugin.Previous(&c.PluginConf)
	if err != nil || previous == nil {
		return nil //nolint:nilerr // DEL works without prevResult; the ADD of the next container also deletes the connections
	}
	var addresses []netip.Prefix
	for _, ip := range previous.IPs {
		addresses = append(addresses, plugin.Prefix(ip.Address))
	}
	return host.ForgetConnections(addresses)
}

// network returns the plan of the network, which is the same for all its containers.
func (c *Config) network() *setup.Network {
	return &setup.Network{
		Bridge: c.Bridge, VLANs: c.vlans, MTU: c.mtu, Conflict: c.conflict, Promiscuous: c.PromiscMode, MasqueradeNot: c.masqExclude,
		Forward: c.forward, ForwardChains: c.chains, Mark: c.mark, Ingress: c.ingress, EstablishedOnly: c.Inbound == "established", Guarded: c.guard() != setup.GuardNone, FastPath: c.fastPath,
	}
}

// guard returns which source addresses the guard of a container checks: MAC and IP addresses, MAC
// addresses alone, or none. An isolated network has a guard by default. The default guard checks IP
// addresses only if the IPAM plugin assigns all addresses of a container. macspoofchk and
// ipspoofchk override the default.
func (c *Config) guard() setup.Guard {
	mac := c.ingress == setup.IngressIsolated
	ip := mac && c.IPAM.Type != "" && !c.UsesDHCP()
	if c.MACSpoofCheck != nil {
		mac = *c.MACSpoofCheck
		ip = ip && mac
	}
	if c.IPSpoofCheck != nil {
		ip = *c.IPSpoofCheck
	}
	switch {
	case ip:
		return setup.GuardIP
	case mac:
		return setup.GuardMAC
	}
	return setup.GuardNone
}

// HostPorts returns the host ports that the runtime asks for.
func (c *Config) HostPorts() []setup.HostPort { return c.hostPorts }

// UsesDHCP reports whether the IPAM plugin asks a DHCP server through the container's interface.
// ADD then creates the interface before it calls the IPAM plugin, and DEL calls the IPAM plugin
// before it deletes the interface.
func (c *Config) UsesDHCP() bool { return c.IPAM.Type == "dhcp" }

// autoconfigured reports whether routers on the network may assign IPv6 addresses to a container.
func (c *Config) autoconfigured() bool {
	return c.IPAM.Type == "" || c.UsesDHCP() && c.guard() != setup.GuardIP
}

// sysctlPath returns the path of a sysctl below /proc/sys, with ifname in place of IFNAME. As in
// sysctl(8), either "." or "/" separates the parts of a key. The first of these characters in the
// key is the separator, and the other character is part of a name.
func sysctlPath(key, ifname string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		key = strings.NewReplacer(".", "/", "/", ".").Replace(key)
	}
	return strings.ReplaceAll(key, "IFNAME", ifname)
}
