package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Network describes the objects that the containers on one bridge share. The first ADD creates
// these objects. Their number does not depend on the number of containers.
type Network struct {
	Bridge          string
	VLANs           VLANs
	MTU             int            // in bytes, of a bridge that ADD creates; 0 means the kernel's default
	IPv4, IPv6      bool           // the address families of the network's packets
	Gateways        []netip.Prefix // the addresses of the bridge or VLAN link that containers use as their gateway; the host forwards packets of these address families
	OnLink          []netip.Prefix // addresses of containers in subnets without the gateway; the host gets a route to each of these subnets
	Conflict        Conflict       // what happens to other addresses of the bridge
	Promiscuous     bool           // the bridge receives all frames; an existing bridge stays in this mode after the last DEL
	Forward         Forward
	ForwardChains   []Chain        // chains of other programs that must accept the network's packets
	Mark            uint32         // bits to set in the mark of the network's packets before the chains of other programs filter them
	Masquerade      []netip.Prefix // subnets whose packets are masqueraded when they leave the network
	MasqueradeNot   []netip.Prefix // destinations to which packets are not masqueraded
	HostPorts       []netip.Prefix // subnets of containers that have host ports
	Ingress         Ingress
	EstablishedOnly bool // other hosts and networks may only send replies and open connections to published ports
	Guarded         bool // the network has ports with a Guard
	FastPath        FastPath
}

// Has reports whether the network has packets of this address family (AF_INET, AF_INET6).
func (net *Network) Has(family int) bool {
	return family == unix.AF_INET && net.IPv4 || family == unix.AF_INET6 && net.IPv6
}

// Families returns the address families of the network's packets.
func (net *Network) Families() (families []int) {
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		if net.Has(f) {
			families = append(families, f)
		}
	}
	return families
}

// Comment returns the comment for a rule of the network: the name of the bridge, then the strings
// in the parameter "what". DEL finds the rule by the name of the bridge. If a VLAN link has the
// gateways, its name comes directly after that of the bridge.
func (net *Network) Comment(what ...string) string {
	return strings.Join(append(net.Links(), what...), " ")
}

// VLANs are the VLANs of a network's ports, on a bridge with VLAN filtering
// (Documentation/networking/bridge.rst, "VLAN"). The zero value means no VLANs.
type VLANs struct {
	Native      int         // VLAN of untagged frames and of the gateways, 1..4094; 0 means none
	Untagged    int         // VLAN of untagged frames if Native is 0; the gateways are on the bridge itself
	Trunk       []VLANRange // VLANs of tagged frames
	KeepDefault bool        // ports also stay in the bridge's default VLAN (ip-link(8), "vlan_default_pvid")
}

// VLANRange contains the VLAN IDs from First to Last, both included.
type VLANRange struct{ First, Last int }

// MaxVLAN is the highest VLAN ID: IEEE 802.1Q, table 9-2.
const MaxVLAN = 4094

// Any reports whether the network uses VLANs.
func (v VLANs) Any() bool { return v.Native != 0 || len(v.Trunk) > 0 }

// RoutedBy returns the name of the link that has the gateways: the bridge, or a VLAN link on the
// bridge. The creator of the Network must make sure that this name has at most 15 characters.
func (net *Network) RoutedBy() string {
	if net.VLANs.Native == 0 || len(net.Gateways) == 0 {
		return net.Bridge
	}
	return fmt.Sprintf("%s.%d", net.Bridge, net.VLANs.Native)
}

// Links returns the name of the bridge. If a VLAN link has the gateways, the name of the VLAN link
// follows. Rules must match both links: routed packets of the VLAN pass through the VLAN link, but
// iptables sees bridged packets of the VLAN (br_netfilter) on the bridge.
func (net *Network) Links() []string {
	return slices.Compact([]string{net.Bridge, net.RoutedBy()})
}
