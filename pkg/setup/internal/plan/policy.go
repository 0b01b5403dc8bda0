package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Conflict says what becomes of an address of the bridge's that stands in a gateway's
// way: in IPv4 any other, in IPv6 one of an overlapping subnet.
type Conflict int

const (
	// ConflictError refuses the gateway: ErrAddressConflict.
	ConflictError Conflict = iota
	// ConflictReplace deletes the other address.
	ConflictReplace
	// ConflictAdd leaves it beside the gateway. One that we set goes with the last container
	// of its subnet.
	ConflictAdd
)

var conflictNames = []string{"error", "replace", "add"}

// ParseConflict reads a Conflict by its name: error, replace or add.
func ParseConflict(name string) (Conflict, error) {
	if i := slices.Index(conflictNames, name); i >= 0 {
		return Conflict(i), nil
	}
	return 0, fmt.Errorf("%q is none of %s", name, strings.Join(conflictNames, ", "))
}

// Forward says how packets of a bridge get past chains that deny. Every base chain on
// the hook has to let a packet pass, so an accept in a table of our own would not do
// (nft(8), "verdict statement"): each is cured in its own way.
type Forward int

const (
	// ForwardAuto cures what is in force: iptables, firewalld, both. Where neither
	// is, the rules of iptables are set all the same if there is an iptables, for
	// what may come later.
	ForwardAuto Forward = iota
	// ForwardIPTables accepts them by rules in FORWARD, in every flavour in force.
	ForwardIPTables
	// ForwardFirewalld puts the bridge into a zone of firewalld's.
	ForwardFirewalld
	// ForwardSysctl keeps bridged packets from all of iptables, for every bridge
	// of the host. Routed packets still meet the chain.
	ForwardSysctl
	// ForwardNone leaves it to others.
	ForwardNone
)

var forwardNames = []string{"auto", "iptables", "firewalld", "sysctl", "none"}

// ParseForward reads a Forward by its name: auto, iptables, firewalld, sysctl or none.
func ParseForward(name string) (Forward, error) {
	if f := slices.Index(forwardNames, name); f >= 0 {
		return Forward(f), nil
	}
	return 0, fmt.Errorf("%q is none of %s", name, strings.Join(forwardNames, ", "))
}

// Guard says under which addresses a port may send.
type Guard int

const (
	// GuardNone lets it send under any.
	GuardNone Guard = iota
	// GuardMAC holds it to its MAC address.
	GuardMAC
	// GuardIP holds it to its IP addresses besides, in IP and ARP, and to these protocols.
	GuardIP
)

// Ingress says who may open connections to a network's containers. Published ports
// are open to all, and so is the host's way to its containers, whichever it is.
type Ingress int

const (
	// IngressOpen lets everybody.
	IngressOpen Ingress = iota
	// IngressSameBridge keeps out what comes by another bridge: other networks.
	IngressSameBridge
	// IngressIsolated keeps out containers of the same network too. Their ports are
	// isolated on the bridge, which br_netfilter's translation of bridged packets to
	// published ports does not get around.
	IngressIsolated
)

var ingressNames = []string{"open", "same-bridge", "isolated"}

// ParseIngress reads an Ingress by its name: open, same-bridge or isolated, as in the
// reference plugin firewall.
func ParseIngress(name string) (Ingress, error) {
	if i := slices.Index(ingressNames, name); i >= 0 {
		return Ingress(i), nil
	}
	return 0, fmt.Errorf("%q is none of %s", name, strings.Join(ingressNames, ", "))
}

// String is the name that ParseIngress reads.
func (i Ingress) String() string { return ingressNames[i] }
