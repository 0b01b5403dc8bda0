package attachment

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// PortMapping is an entry of the capability portMappings: a host port (containernetworking/cni,
// CONVENTIONS.md).
type PortMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"` // "" means tcp
	HostIP        string `json:"hostIP"`   // "" means all addresses of the host
}

// protocols maps the name of each supported protocol to its number.
var protocols = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// readHostPorts parses the capability portMappings. The error names every mistake.
func readHostPorts(mappings []PortMapping) (ports []setup.HostPort, _ error) {
	var bad []error
	for i, m := range mappings {
		if m.HostPort == 0 {
			continue // a mapping without a host port publishes nothing; some runtimes list such mappings
		}
		h, mistakes := m.read(fmt.Sprintf("runtimeConfig.portMappings[%d].", i))
		if j := slices.IndexFunc(ports, func(o setup.HostPort) bool { return same(o, h) }); j >= 0 {
			mistakes = append(mistakes, fmt.Errorf("runtimeConfig.portMappings[%d]: host port %s is listed twice, first as %s; leave out one entry", i, h, ports[j]))
		}
		ports = append(ports, h)
		bad = append(bad, mistakes...)
	}
	return ports, errors.Join(bad...)
}

// same reports whether two host ports conflict. Their container ports do not matter. A host port on
// one address of the host takes precedence over the same host port on all addresses, so these two
// do not conflict.
func same(a, b setup.HostPort) bool {
	all := func(h setup.HostPort) bool { return !h.Address.IsValid() || h.Address.IsUnspecified() }
	if a.Port != b.Port || a.Protocol != b.Protocol || all(a) != all(b) {
		return false
	}
	return a.Address == b.Address || !a.Address.IsValid() || !b.Address.IsValid()
}

// read returns the host port that m describes, and the mistakes in m. The errors begin with path,
// the JSON path of m.
func (m PortMapping) read(path string) (h setup.HostPort, bad []error) {
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
			bad = append(bad, fmt.Errorf("%s%s: %d is no port; set a number from 1 to 65535", path, port.key, port.value))
		}
	}
	h = setup.HostPort{Protocol: protocol, Port: uint16(m.HostPort), Container: uint16(m.ContainerPort)}
	if m.HostIP != "" {
		address, err := netip.ParseAddr(m.HostIP)
		if err != nil || address.Zone() != "" {
			bad = append(bad, fmt.Errorf("%shostIP: %q is no IP address; write an address of the host, or leave it out for all addresses", path, m.HostIP))
		}
		h.Address = address.Unmap()
	}
	return h, bad
}

// AddHostPorts adds host ports to the plan of a bridge port. It also adds the subnets of their
// target addresses to the plan of the network. The target of a host port is the container's first
// address of a family. Call AddResult before AddHostPorts, because AddResult adds the addresses.
func AddHostPorts(p *setup.Port, ports []setup.HostPort) error {
	p.HostPorts = ports
	for _, h := range ports {
		if len(p.Addresses) == 0 && !h.Address.IsValid() {
			return plugin.Errorf(types.ErrInvalidNetworkConfig,
				`runtimeConfig.portMappings: host port %s needs an address in the container, which has none; set "ipam", or leave out the host port`, h)
		}
	}
	for _, is4 := range []bool{true, false} {
		first := slices.IndexFunc(p.Addresses, func(a netip.Prefix) bool { return a.Addr().Is4() == is4 })
		for _, h := range ports {
			if first < 0 && h.Address.IsValid() && h.Address.Is4() == is4 {
				return plugin.Errorf(types.ErrInvalidNetworkConfig,
					"runtimeConfig.portMappings: host port %s needs an %s address in the container; add a range of this family, or set another hostIP",
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
