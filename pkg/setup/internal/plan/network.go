package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Network is what the containers on one bridge share. All of it is made once,
// and is the same size however many containers there are.
type Network struct {
	Bridge          string
	VLANs           VLANs
	MTU             int            // bytes, of a bridge that is made; 0 is the kernel's default
	IPv4, IPv6      bool           // the families that its packets belong to
	Gateways        []netip.Prefix // the bridge's own addresses; forwarding is on for their families
	OnLink          []netip.Prefix // addresses of containers whose subnet has no gateway in it: the host gets a route to the subnet
	Conflict        Conflict       // what becomes of other addresses of the bridge
	Promiscuous     bool           // the bridge takes in all frames; a bridge that stays goes on doing so
	Forward         Forward
	ForwardChains   []Chain        // of others, that are to accept its packets besides
	Mark            uint32         // bits that are set in the mark of its packets before others filter them
	Masquerade      []netip.Prefix // subnets whose packets get the host's address where they leave
	MasqueradeNot   []netip.Prefix // destinations to which they do not
	HostPorts       []netip.Prefix // subnets with containers that have host ports
	Ingress         Ingress
	EstablishedOnly bool // from beyond the host only replies come in, and what goes to published ports
	Guarded         bool // it has ports that send under certain addresses only
}

// Has reports whether packets of a family (AF_INET, AF_INET6) belong to the network.
func (net *Network) Has(family int) bool {
	return family == unix.AF_INET && net.IPv4 || family == unix.AF_INET6 && net.IPv6
}

// Families lists the families that packets of the network belong to.
func (net *Network) Families() (families []int) {
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		if net.Has(f) {
			families = append(families, f)
		}
	}
	return families
}

// Comment names a rule of a network: by the bridge, by which it is found again, and by the
// link that the network is routed by where that is another.
func (net *Network) Comment(what ...string) string {
	return strings.Join(append(net.Links(), what...), " ")
}

// VLANs are those that the ports of a network belong to, on a bridge that keeps them
// apart (Documentation/networking/bridge.rst, "VLAN"). The zero VLANs are none at all.
type VLANs struct {
	Native      int         // of frames without a tag, and where the gateways are; 1..4094, 0 is none
	Untagged    int         // of frames without a tag, where Native is none; gateways are on the bridge itself
	Trunk       []VLANRange // of frames that keep their tags
	KeepDefault bool        // ports stay in the bridge's default VLAN besides (ip-link(8), "vlan_default_pvid")
}

// VLANRange is from First to Last, both included.
type VLANRange struct{ First, Last int }

const (
	// MaxVLAN is the last VLAN there may be: IEEE 802.1Q, table 9-2.
	MaxVLAN = 4094
)

// Any reports whether there are any.
func (v VLANs) Any() bool { return v.Native != 0 || len(v.Trunk) > 0 }

// RoutedBy is the link by which the host routes for the network: the bridge, or a VLAN
// link on it. Its name has to be of up to 15 letters.
func (net *Network) RoutedBy() string {
	if net.VLANs.Native == 0 || len(net.Gateways) == 0 {
		return net.Bridge
	}
	return fmt.Sprintf("%s.%d", net.Bridge, net.VLANs.Native)
}

// Links lists the links that a network's packets come and go by: br_netfilter shows those
// of a VLAN as the bridge's.
func (net *Network) Links() []string {
	return slices.Compact([]string{net.Bridge, net.RoutedBy()})
}
