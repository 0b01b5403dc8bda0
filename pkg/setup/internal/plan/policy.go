package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Conflict selects what happens to an address of the bridge that conflicts with a gateway. In IPv4, every
// other address of the bridge conflicts. In IPv6, every address with an overlapping subnet conflicts.
type Conflict int

const (
	// ConflictError makes ADD fail with ErrAddressConflict.
	ConflictError Conflict = iota
	// ConflictReplace deletes the conflicting address.
	ConflictReplace
	// ConflictAdd keeps both addresses. If we added the conflicting address earlier, DEL of the last
	// container in its subnet deletes it.
	ConflictAdd
)

var conflictNames = []string{"error", "replace", "add"}

// ParseConflict returns the Conflict with this name: error, replace or add.
func ParseConflict(name string) (Conflict, error) {
	if i := slices.Index(conflictNames, name); i >= 0 {
		return Conflict(i), nil
	}
	return 0, fmt.Errorf("%q is none of %s", name, strings.Join(conflictNames, ", "))
}

// Forward selects the method by which FORWARD chains are made to accept the packets of a bridge. Every
// base chain on the hook must accept a packet (nft(8), "verdict statement"), so a rule in our own table
// is not sufficient.
type Forward int

const (
	// ForwardAuto is ForwardIPTables if iptables is in use, and also ForwardFirewalld if firewalld
	// runs. If iptables is not in use but the host has the program, ADD adds the iptables rules for a
	// firewall that starts later.
	ForwardAuto Forward = iota
	// ForwardIPTables adds rules to FORWARD in each flavour of iptables (nft, legacy) that is in use.
	ForwardIPTables
	// ForwardFirewalld puts the bridge into a zone of firewalld.
	ForwardFirewalld
	// ForwardSysctl stops br_netfilter from passing bridged packets to iptables, for every bridge of
	// the host. Routed packets still traverse FORWARD.
	ForwardSysctl
	// ForwardNone changes nothing. Network.ForwardChains still takes effect.
	ForwardNone
)

var forwardNames = []string{"auto", "iptables", "firewalld", "sysctl", "none"}

// ParseForward returns the Forward with this name: auto, iptables, firewalld, sysctl or none.
func ParseForward(name string) (Forward, error) {
	if f := slices.Index(forwardNames, name); f >= 0 {
		return Forward(f), nil
	}
	return 0, fmt.Errorf("%q is none of %s", name, strings.Join(forwardNames, ", "))
}

// Guard selects which source addresses of a port are checked.
type Guard int

const (
	// GuardNone checks nothing.
	GuardNone Guard = iota
	// GuardMAC drops frames that are not from the container's MAC address.
	GuardMAC
	// GuardIP drops the same frames as GuardMAC. It also drops packets that are not from the
	// container's IP addresses, in IPv4, IPv6, ARP and neighbour advertisements. It drops all frames
	// of other protocols.
	GuardIP
)

// FastPath selects whether routed packets of established connections skip all chains, by a flowtable of
// the kernel (Documentation/networking/nf_flowtable.rst).
type FastPath int

const (
	// FastPathOff adds no flowtable.
	FastPathOff FastPath = iota
	// FastPathAuto is FastPathOn, and FastPathOff on a kernel without flowtables.
	FastPathAuto
	// FastPathOn is refused on a kernel without flowtables: ErrNoFlowtables.
	FastPathOn
)

// Ingress selects who may open connections to a network's containers. With every Ingress, the host may
// open connections, and everybody may use published host ports.
type Ingress int

const (
	// IngressOpen allows everybody.
	IngressOpen Ingress = iota
	// IngressSameBridge drops connections from other bridges, which are other networks.
	IngressSameBridge
	// IngressIsolated also drops connections between containers of the network. The containers' bridge
	// ports are isolated, so with br_netfilter, the containers do not reach each other's published
	// ports either.
	IngressIsolated
)

var ingressNames = []string{"open", "same-bridge", "isolated"}

// ParseIngress returns the Ingress with this name: open, same-bridge or isolated. The reference plugin
// firewall has the same names.
func ParseIngress(name string) (Ingress, error) {
	if i := slices.Index(ingressNames, name); i >= 0 {
		return Ingress(i), nil
	}
	return 0, fmt.Errorf("%q is none of %s", name, strings.Join(ingressNames, ", "))
}

// String returns the name of the Ingress. It is the inverse of ParseIngress.
func (i Ingress) String() string { return ingressNames[i] }
