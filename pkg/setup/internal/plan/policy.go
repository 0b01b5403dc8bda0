package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Conflict selects what ADD does with an address of the bridge that conflicts with a gateway. In
// IPv4, every other address of the bridge conflicts. In IPv6, every address with an overlapping
// subnet conflicts.
type Conflict int

const (
	// ConflictError makes ADD fail with ErrAddressConflict.
	ConflictError Conflict = iota
	// ConflictReplace deletes the conflicting address.
	ConflictReplace
	// ConflictAdd keeps both addresses. If we added the conflicting address earlier, DEL of the
	// last container in the subnet of that address deletes the address.
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

// Forward selects how bridgeveth makes FORWARD chains accept the packets of a bridge. A rule in our
// own table is not sufficient, because every base chain on the forward hook must accept a packet
// (nft(8), "verdict statement").
type Forward int

const (
	// ForwardAuto means ForwardIPTables if iptables is in use, and also ForwardFirewalld if
	// firewalld runs. If the host has the program iptables but does not use it yet, ADD adds the
	// iptables rules too, because a program such as dockerd may start later and deny packets.
	ForwardAuto Forward = iota
	// ForwardIPTables adds rules to FORWARD in each flavour of iptables (nft, legacy) that is in use.
	ForwardIPTables
	// ForwardFirewalld adds the bridge to a zone of firewalld.
	ForwardFirewalld
	// ForwardSysctl stops br_netfilter from passing bridged packets to iptables, for every bridge of
	// the host. Routed packets still traverse FORWARD.
	ForwardSysctl
	// ForwardNone changes no FORWARD chain, except the chains in Network.ForwardChains.
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

// Guard selects which source addresses of a container's packets are checked.
type Guard int

const (
	// GuardNone checks nothing.
	GuardNone Guard = iota
	// GuardMAC drops frames that are not from the container's MAC address.
	GuardMAC
	// GuardIP drops the same frames as GuardMAC. It also drops IPv4, IPv6, ARP and neighbour
	// advertisement packets that are not from the container's IP addresses. It drops all frames of
	// other protocols.
	GuardIP
)

// FastPath selects whether a flowtable of the kernel forwards the routed packets of established
// connections. Such packets skip all chains of nf_tables
// (Documentation/networking/nf_flowtable.rst).
type FastPath int

const (
	// FastPathOff adds no flowtable.
	FastPathOff FastPath = iota
	// FastPathAuto means FastPathOn, or FastPathOff on a kernel without flowtables.
	FastPathAuto
	// FastPathOn adds a flowtable. On a kernel without flowtables, ADD fails with ErrNoFlowtables.
	FastPathOn
)

// Ingress selects who may open connections to a network's containers. Every value allows
// connections from the host, and connections to published host ports.
type Ingress int

const (
	// IngressOpen allows connections from everywhere.
	IngressOpen Ingress = iota
	// IngressSameBridge drops connections from containers on other bridges.
	IngressSameBridge
	// IngressIsolated drops connections from containers on other bridges, and connections between
	// containers of the network. The containers' bridge ports are isolated, so the bridge forwards no
	// frame between them. With br_netfilter, these containers cannot reach each other's published
	// host ports either: the bridge translates the destination address, and then does not forward the
	// frame between isolated ports.
	IngressIsolated
)

var ingressNames = []string{"open", "same-bridge", "isolated"}

// ParseIngress returns the Ingress with this name: open, same-bridge or isolated. The reference
// plugin firewall uses the same names.
func ParseIngress(name string) (Ingress, error) {
	if i := slices.Index(ingressNames, name); i >= 0 {
		return Ingress(i), nil
	}
	return 0, fmt.Errorf("%q is none of %s", name, strings.Join(ingressNames, ", "))
}

// String returns the name of the Ingress. It is the inverse of ParseIngress.
func (i Ingress) String() string { return ingressNames[i] }
