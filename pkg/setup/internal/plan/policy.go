package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Conflict selects what happens to an address of the bridge that conflicts with a gateway. In IPv4
// every other address conflicts, in IPv6 every address of an overlapping subnet.
type Conflict int

const (
	// ConflictError refuses the gateway: ErrAddressConflict.
	ConflictError Conflict = iota
	// ConflictReplace deletes the other address.
	ConflictReplace
	// ConflictAdd keeps both addresses. If we added the other address, it is deleted with the last
	// container of its subnet.
	ConflictAdd
)

var conflictNames = []string{"error", "replace", "add"}

// ParseConflict returns the Conflict with a name: error, replace or add.
func ParseConflict(name string) (Conflict, error) {
	if i := slices.Index(conflictNames, name); i >= 0 {
		return Conflict(i), nil
	}
	return 0, fmt.Errorf("%q is none of %s", name, strings.Join(conflictNames, ", "))
}

// Forward selects how packets of a bridge are accepted in FORWARD chains that deny them. Every base
// chain on the hook must accept a packet (nft(8), "verdict statement"), so a rule in our own table is
// not enough.
type Forward int

const (
	// ForwardAuto is ForwardIPTables and ForwardFirewalld, each where it is in force. If neither is
	// and the host has iptables, the rules for iptables are added for a firewall that starts later.
	ForwardAuto Forward = iota
	// ForwardIPTables adds rules to FORWARD, in every flavour of iptables in force.
	ForwardIPTables
	// ForwardFirewalld puts the bridge into a zone of firewalld.
	ForwardFirewalld
	// ForwardSysctl stops br_netfilter from passing bridged packets to iptables, for every bridge of
	// the host. Routed packets still traverse FORWARD.
	ForwardSysctl
	// ForwardNone does nothing.
	ForwardNone
)

var forwardNames = []string{"auto", "iptables", "firewalld", "sysctl", "none"}

// ParseForward returns the Forward with a name: auto, iptables, firewalld, sysctl or none.
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
	// GuardIP is GuardMAC, and drops packets that are not from the container's IP addresses, in IPv4,
	// IPv6, ARP and neighbour advertisements. It drops all other protocols.
	GuardIP
)

// Ingress selects who may open connections to a network's containers. With every Ingress the host may,
// and everybody may use published ports.
type Ingress int

const (
	// IngressOpen allows everybody.
	IngressOpen Ingress = iota
	// IngressSameBridge drops connections from other bridges, which are other networks.
	IngressSameBridge
	// IngressIsolated also drops connections between containers of the network. Their bridge ports
	// are isolated, so with br_netfilter they do not reach each other's published ports either.
	IngressIsolated
)

var ingressNames = []string{"open", "same-bridge", "isolated"}

// ParseIngress returns the Ingress with a name: open, same-bridge or isolated. The reference plugin
// firewall has the same names.
func ParseIngress(name string) (Ingress, error) {
	if i := slices.Index(ingressNames, name); i >= 0 {
		return Ingress(i), nil
	}
	return 0, fmt.Errorf("%q is none of %s", name, strings.Join(ingressNames, ", "))
}

// String returns the name of the Ingress. It is the inverse of ParseIngress.
func (i Ingress) String() string { return ingressNames[i] }
