package bridgeveth

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// capabilities are the keys below "runtimeConfig" that are ours. containerd writes
// them as its Go fields are called, "HostPort", which is the same to us.
type capabilities struct {
	MAC          string        `json:"mac"`
	PortMappings []portMapping `json:"portMappings"`
	Bandwidth    bandwidth     `json:"bandwidth"`
}

// bandwidth is the capability of that name (containernetworking/cni, CONVENTIONS.md), in
// bits per second and bits; 0 is none.
type bandwidth struct {
	IngressRate  int64 `json:"ingressRate"`
	IngressBurst int64 `json:"ingressBurst"`
	EgressRate   int64 `json:"egressRate"`
	EgressBurst  int64 `json:"egressBurst"`
}

// portMapping is an entry of the capability portMappings (containernetworking/cni,
// CONVENTIONS.md).
type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"` // tcp when empty
	HostIP        string `json:"hostIP"`   // any when empty
}

// protocols are those that have ports, by their names.
var protocols = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// readRuntime reads what the runtime asks for.
func (c *config) readRuntime(envArgs string) error {
	var asked capabilities
	if len(c.RuntimeConfig) > 0 {
		if err := plugin.Read(c.RuntimeConfig, &asked, "runtimeConfig."); err != nil {
			return err
		}
	}
	if err := c.readMAC(asked.MAC, envArgs); err != nil {
		return err
	}
	var bad []error
	c.bandwidth, bad = asked.Bandwidth.read()
	for i, m := range asked.PortMappings {
		if m.HostPort == 0 {
			continue // a port that is not published: runtimes list such
		}
		h, mistakes := m.read(fmt.Sprintf("runtimeConfig.portMappings[%d].", i))
		if slices.Contains(c.hostPorts, h) {
			mistakes = append(mistakes, fmt.Errorf("runtimeConfig.portMappings[%d]: host port %s is in the list twice", i, h))
		}
		c.hostPorts = append(c.hostPorts, h)
		bad = append(bad, mistakes...)
	}
	if len(bad) > 0 {
		return plugin.Errorf(types.ErrInvalidNetworkConfig, "network %s: %w", c.Name, errors.Join(bad...))
	}
	return nil
}

// readMAC reads which MAC the container is to have. Of the places where a runtime may
// say so the first counts that names one, as the conventions have it
// (containernetworking/cni, CONVENTIONS.md).
func (c *config) readMAC(capability, envArgs string) (err error) {
	var args struct {
		CNI struct {
			MAC string `json:"mac"`
		} `json:"cni"`
	}
	if len(c.Args) > 0 {
		if err := plugin.Read(c.Args, &args, "args."); err != nil {
			return err
		}
	}
	for _, place := range []struct {
		key, value string
		code       uint
	}{
		{"runtimeConfig.mac", capability, types.ErrInvalidNetworkConfig},
		{"args.cni.mac", args.CNI.MAC, types.ErrInvalidNetworkConfig},
		{"CNI_ARGS: MAC", plugin.Args(envArgs)["MAC"], types.ErrInvalidEnvironmentVariables},
	} {
		if place.value == "" {
			continue
		}
		c.mac, err = net.ParseMAC(place.value)
		if err != nil || len(c.mac) != 6 || c.mac[0]&1 == 1 || c.mac.String() == "00:00:00:00:00:00" {
			return plugin.Errorf(place.code, "%s: %q is no MAC address of one interface; write one as 02:00:00:00:00:01", place.key, place.value)
		}
		return nil
	}
	return nil
}

// read reads the limits and lists what is wrong with them.
func (b bandwidth) read() (limits setup.Bandwidth, bad []error) {
	for _, way := range []struct {
		key         string
		rate, burst int64
		limit       *setup.Limit
	}{
		{"runtimeConfig.bandwidth.ingress", b.IngressRate, b.IngressBurst, &limits.Ingress},
		{"runtimeConfig.bandwidth.egress", b.EgressRate, b.EgressBurst, &limits.Egress},
	} {
		switch {
		case way.rate == 0 && way.burst == 0:
		case way.rate == 0:
			bad = append(bad, fmt.Errorf("%[1]sRate: there is none with %[1]sBurst %[2]d; give bits per second, or leave both out for no limit", way.key, way.burst))
		case way.rate < setup.MinRate:
			bad = append(bad, fmt.Errorf("%sRate: %d is too little; give %d bits per second or more, or leave it out for no limit", way.key, way.rate, setup.MinRate))
		case way.burst <= 0:
			bad = append(bad, fmt.Errorf("%[1]sBurst: %[2]d lets nothing pass at %[1]sRate %[3]d; give the bits that may pass at once", way.key, way.burst, way.rate))
		default:
			*way.limit = setup.Limit{Rate: uint64(way.rate), Burst: uint64(way.burst)}
		}
	}
	return limits, bad
}

// read reads the entry below path and lists what is wrong with it.
func (m portMapping) read(path string) (h setup.HostPort, bad []error) {
	name := strings.ToLower(m.Protocol)
	if name == "" {
		name = "tcp"
	}
	protocol, known := protocols[name]
	if !known {
		bad = append(bad, fmt.Errorf("%sprotocol: %q is none of tcp, udp, sctp", path, m.Protocol))
	}
	for _, port := range []struct {
		key   string
		value int
	}{{"hostPort", m.HostPort}, {"containerPort", m.ContainerPort}} {
		if port.value < 1 || port.value > 65535 {
			bad = append(bad, fmt.Errorf("%s%s: %d is no port; give one of 1..65535", path, port.key, port.value))
		}
	}
	h = setup.HostPort{Protocol: protocol, Port: uint16(m.HostPort), Container: uint16(m.ContainerPort)}
	if m.HostIP != "" {
		address, err := netip.ParseAddr(m.HostIP)
		if err != nil || address.Zone() != "" {
			bad = append(bad, fmt.Errorf("%shostIP: %q is no address of the host; write one, or leave it out for all", path, m.HostIP))
		}
		h.Address = address.Unmap()
	}
	return h, bad
}

// publish gives the port its host ports, and the network what they need: the first
// address of each family is what they lead to.
func (c *config) publish(p *setup.Port) error {
	p.HostPorts = c.hostPorts
	p.Hairpin = p.Hairpin || len(c.hostPorts) > 0 && !c.PromiscMode // so that the container reaches its own
	for _, is4 := range []bool{true, false} {
		first := slices.IndexFunc(p.Addresses, func(a netip.Prefix) bool { return a.Addr().Is4() == is4 })
		for _, h := range c.hostPorts {
			if first < 0 && h.Address.IsValid() && h.Address.Is4() == is4 {
				return plugin.Errorf(types.ErrInvalidNetworkConfig,
					"runtimeConfig.portMappings: host port %s needs an %s address in the container; add a range of them, or name another hostIP",
					h, map[bool]string{true: "IPv4", false: "IPv6"}[is4])
			}
			if first >= 0 && (!h.Address.IsValid() || h.Address.Is4() == is4) {
				p.Network.HostPorts = append(p.Network.HostPorts, p.Addresses[first].Masked())
				break
			}
		}
	}
	return nil
}
