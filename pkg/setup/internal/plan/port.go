package plan

import (
	"net"
	"net/netip"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

// MinRate is the lowest rate of a Limit, in bits per second. Kubernetes has the same minimum.
const MinRate = 1000

// Limit is a bandwidth limit in one direction, by a token bucket (tc-tbf(8)).
type Limit struct {
	Rate  uint64 // bits per second, of whole Ethernet frames; 0 means no limit, otherwise at least MinRate
	Burst uint64 // bits that may pass at once after a pause; a burst above 50 ms of Rate is reduced to 50 ms, a burst below one frame is raised to one frame
}

// Bandwidth has the bandwidth limits of a port. The directions are those of CNI's capability
// bandwidth: Ingress limits the traffic to the container, Egress the traffic from the container.
type Bandwidth struct{ Ingress, Egress Limit }

const (
	// MinMTU is the lowest MTU of a bridge and of a veth pair, in bytes: RFC 791.
	MinMTU = 68
	// MaxMTU is the highest MTU, in bytes: ETH_MAX_MTU in linux/if_ether.h.
	MaxMTU = 65535
)

// AnyMTU is a value of Port.MTU. With this value, VerifyPort accepts every MTU.
const AnyMTU = -1

// Port describes how one container is connected to a network: by a veth pair with one end on the
// bridge and the other end in the container's namespace, or by a link that another plugin created.
type Port struct {
	Attachment
	ExistingLink string // link of the host that becomes the port, such as a tap that another plugin created; "" for a veth pair
	Container    *netns.Namespace
	Network      *Network
	MTU          int              // of both ends, in bytes; 0 means the MTU of the bridge
	MAC          net.HardwareAddr // of the container's end; nil means a MAC derived from the container's first address
	Hairpin      bool             // the bridge may send a frame back through the port on which it arrived
	Isolated     bool             // the port exchanges no frames with other isolated ports
	Guard        Guard
	GuardDefault bool           // the configuration does not set the guard, so a port that an older version of bridgeveth attached has no guard
	BPDUGuard    bool           // the bridge disables the port if a BPDU arrives on it
	Addresses    []netip.Prefix // of the container
	Routes       []Route        // of the container; the route to a gateway comes before the routes through that gateway
	Bandwidth    Bandwidth
	HostPorts    []HostPort // redirected to the container's first address of each family

	Sysctls          map[string]string // of the container, by path below /proc/sys/net; set before the container's end is up
	DetectDuplicates bool              // the kernel checks IPv6 addresses for duplicates, so they work only some seconds later
	Autoconfigured   bool              // the container gets IPv6 addresses and routes from routers on the network (RFC 4862)
	Down             bool              // the container's end stays down and without addresses, because another program configures it
}

// MTUOn returns the MTU of both ends of the veth pair. The parameter bridge is the MTU of the
// bridge.
func (p *Port) MTUOn(bridge int) int {
	if p.MTU != 0 {
		return p.MTU
	}
	return bridge
}

// LinkName returns the name of the host's link that is the bridge port.
func (p *Port) LinkName() string {
	if p.ExistingLink != "" {
		return p.ExistingLink
	}
	return p.Port()
}

// EndMAC returns the MAC address of the container's end.
func (p *Port) EndMAC() net.HardwareAddr {
	if p.MAC != nil {
		return p.MAC
	}
	return p.containerMAC(p.Addresses)
}
