package plan

import (
	"net"
	"net/netip"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

const (
	// MinRate is the least rate of a Limit, in bits per second: that of Kubernetes.
	MinRate = 1000
)

// Limit is how much may pass one way, by a token bucket (tc-tbf(8)).
type Limit struct {
	Rate  uint64 // bits per second, of whole Ethernet frames; 0 is no limit, and less than MinRate too little
	Burst uint64 // bits that may pass at once after a pause; at most what the rate lets pass in 50 ms count, and at least a frame
}

// Bandwidth limits what a port carries. The directions are as the container sees them: CNI's
// capability of that name.
type Bandwidth struct{ Ingress, Egress Limit }

const (
	// MinMTU is the least MTU of a bridge and of a veth pair, in bytes: RFC 791.
	MinMTU = 68
	// MaxMTU is the largest, in bytes: ETH_MAX_MTU in linux/if_ether.h.
	MaxMTU = 65535
)

// AnyMTU has VerifyPort not look at the MTU of a port.
const AnyMTU = -1

// Port is a container's place on a network: a veth pair with one end on the
// bridge and the other in the container's namespace, or a link that was given.
type Port struct {
	Attachment
	ExistingLink string // host link that another plugin made (a tap, for instance) and that becomes the port; "" for a veth pair
	Container    *netns.Namespace
	Network      *Network
	MTU          int              // bytes, of both ends; 0 is that of the bridge
	MAC          net.HardwareAddr // of the container's end; nil is one that follows from its address
	Hairpin      bool             // the bridge may send back by the port what came by it
	Isolated     bool             // it sends nothing to other isolated ports, and gets nothing from them
	Guard        Guard
	GuardDefault bool           // the configuration does not name the guard, so ports that an older build attached have none
	BPDUGuard    bool           // the bridge disables the port if a BPDU comes by it
	Addresses    []netip.Prefix // of the container
	Routes       []Route        // of the container, in an order in which each finds its gateway
	Bandwidth    Bandwidth      // limits in bits per second; zero is none
	HostPorts    []HostPort     // that lead to the container's first address of each family

	Sysctls          map[string]string // of the container, by path below /proc/sys/net; set before its end is up
	DetectDuplicates bool              // of IPv6 addresses: they are of use only some seconds later
	Autoconfigured   bool              // routers on the network give the container IPv6 addresses and routes (RFC 4862)
	Down             bool              // the container's end is left as the kernel makes it, for somebody else
}

// MTUOn is the MTU of both ends, on a bridge with the given one.
func (p *Port) MTUOn(bridge int) int {
	if p.MTU != 0 {
		return p.MTU
	}
	return bridge
}

// LinkName is what the kernel calls the link on the bridge.
func (p *Port) LinkName() string {
	if p.ExistingLink != "" {
		return p.ExistingLink
	}
	return p.Port()
}

// EndMAC is the link-layer address of the container's end.
func (p *Port) EndMAC() net.HardwareAddr {
	if p.MAC != nil {
		return p.MAC
	}
	return p.containerMAC(p.Addresses)
}
