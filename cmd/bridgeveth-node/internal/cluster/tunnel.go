package cluster

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
)

// TunnelLink is the name of the VXLAN device.
const TunnelLink = "bvx0"

// Tunnel describes the VXLAN device: its parameters, its addresses, and its peers.
type Tunnel struct {
	Local     netip.Addr // the own address in the network between the nodes
	Port      int        // UDP
	MTU       int        // bytes
	MAC       string
	Addresses []netip.Prefix // the addresses of the device: one for each family of the own ranges
	Peers     []Peer         // sorted by MAC
}

// Peer is a node that is reached through the tunnel.
type Peer struct {
	MAC      string
	Remote   netip.Addr   // the address of the peer to which the device sends frames for MAC
	Gateways []netip.Addr // the gateways of the routes to the peer; each has a neighbour entry with MAC
}

// tunnel adds to s what is needed to reach a peer through the VXLAN device. If the peer cannot be
// reached, it returns the reason.
func (s *State) tunnel(own, peer Node, set Settings) (problem string) {
	// A VXLAN device sends all its outer packets in one address family. The agent chooses the
	// family of the own node's first InternalIP.
	local := own.Addresses[0]
	i := slices.IndexFunc(peer.Addresses, func(a netip.Addr) bool { return a.Is4() == local.Is4() })
	if i < 0 {
		return fmt.Sprintf("its InternalIP %v is not of the family of %v, the first of this node; start all kubelets with a --node-ip of one family first", peer.Addresses, local)
	}
	if s.Tunnel == nil {
		s.Tunnel = &Tunnel{Local: local, Port: set.VXLANPort, MTU: s.MTU - overhead(local), MAC: MAC(own.Name)}
		for _, r := range own.Ranges {
			if g := r.Addr(); !slices.ContainsFunc(s.Tunnel.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == g.Is4() }) {
				s.Tunnel.Addresses = append(s.Tunnel.Addresses, netip.PrefixFrom(g, g.BitLen()))
			}
		}
	}
	p := Peer{MAC: MAC(peer.Name), Remote: peer.Addresses[i]}
	for _, r := range peer.Ranges {
		// The gateway is the network address of the peer's range, such as 10.244.2.0. No pod has
		// this address, and each peer has another range.
		p.Gateways = append(p.Gateways, r.Addr())
		s.Routes = append(s.Routes, Route{Range: r, Gateway: r.Addr(), Link: TunnelLink, OnLink: true})
	}
	s.Tunnel.Peers = append(s.Tunnel.Peers, p)
	return ""
}

// overhead returns how many bytes VXLAN adds to a packet: an inner Ethernet header (14), VXLAN (8),
// UDP (8), and an outer IPv4 (20) or IPv6 (40) header. RFC 7348, section 5.
func overhead(local netip.Addr) int {
	if local.Is6() {
		return 70
	}
	return 50
}

// MAC returns the MAC address of a node's VXLAN device. It is derived from the node's name, so
// every node can compute it.
func MAC(node string) string {
	h := sha256.Sum256([]byte("bridgeveth-node " + node))
	return fmt.Sprintf("0e:%02x:%02x:%02x:%02x:%02x", h[0], h[1], h[2], h[3], h[4])
}
