package attack

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// These are the results of an attack, as the table in docs/isolation.md shows them.
const (
	Succeeds = "yes"
	Fails    = "no"
	Capped   = "4096"
	notThere = "–" // the setting is not allowed on such a network
)

// outcome returns the text of a table cell in docs/isolation.md, for an attack that has succeeded
// or failed.
func outcome(success bool) string {
	if success {
		return Succeeds
	}
	return Fails
}

// Attacks are the rows of the table in docs/isolation.md. The test makes the attacks in this order.
// No attack prevents a later one.
var Attacks = []struct {
	Name string
	Make func(*Arena) string
}{
	{"ARP replies for the gateway, sent to a neighbour", func(a *Arena) string { return outcome(a.poison(a.neighbour, gateway4)) }},
	{"ARP replies for a neighbour, sent to the host", func(a *Arena) string { return outcome(a.poison(a.Host, neighbour4)) }},
	{"Neighbour advertisements for the gateway, sent to a neighbour", func(a *Arena) string { return outcome(a.poison(a.neighbour, gateway6)) }},
	{"Neighbour advertisements for a neighbour, sent to the host", func(a *Arena) string { return outcome(a.poison(a.Host, neighbour6)) }},
	{"A neighbour's source MAC address: the bridge sends frames for the neighbour to the attacker", func(a *Arena) string { return outcome(a.takeOver()) }},
	{"A neighbour's source IPv4 address, in packets to the host", func(a *Arena) string { return outcome(a.spoof(UDP4(neighbour4, gateway4, 9, 9))) }},
	{"A neighbour's source IPv6 address, in packets to the host", func(a *Arena) string {
		return outcome(a.spoof(icmp6(neighbour6, gateway6, []byte{128, 0, 0, 0, 0, 0, 0, 0})))
	}},
	{"Router advertisements, sent to a neighbour", func(a *Arena) string {
		return outcome(a.routed("br0", a.Attacker, a.neighbour, "eth0"))
	}},
	{"Router advertisements, sent to the host", func(a *Arena) string {
		return outcome(a.routed("br0", a.Attacker, a.Host, "br0"))
	}},
	{"Router advertisements, sent to a neighbour on a layer 2 network", func(a *Arena) string {
		if a.first == nil {
			return notThere
		}
		return outcome(a.routed("br2", a.first, a.second, "eth0"))
	}},
	{"Replies of a DHCP server, sent to a neighbour on a layer 2 network", func(a *Arena) string {
		if a.first == nil {
			return notThere
		}
		offer := UDP4(netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("255.255.255.255"), 67, 68)
		return outcome(a.reaches("br2", a.first, a.second, "eth0", Ethernet(everybody, MACOf(a.T, a.first, "eth0"), unix.ETH_P_IP, offer)))
	}},
	{"Connections to a neighbour", func(a *Arena) string {
		return outcome(harness.Ask(a.T, a.Attacker, "tcp", "10.88.0.3", 80) != "")
	}},
	{"Connections to a neighbour through the gateway", func(a *Arena) string {
		setuptest.In(a.T, a.Attacker, "ip", "route", "add", "10.88.0.3/32", "via", "10.88.0.1")
		defer setuptest.In(a.T, a.Attacker, "ip", "route", "del", "10.88.0.3/32")
		return outcome(harness.Ask(a.T, a.Attacker, "tcp", "10.88.0.3", 80) != "")
	}},
	{"Connections from a container of another network", func(a *Arena) string {
		return outcome(harness.Ask(a.T, a.other, "tcp", "10.88.0.3", 80) != "")
	}},
	{"Connections to 127.0.0.1 of the host", func(a *Arena) string {
		return outcome(harness.Ask(a.T, a.Attacker, "tcp", "127.0.0.7", 9999) != "")
	}},
	{"Frames from thousands of MAC addresses: the bridge learns them all", func(a *Arena) string { return filled(a.Fill(MACOf(a.T, a.Host, "br0"), 0)) }},
	{"Frames to the address of LLDP from thousands of MAC addresses: the bridge learns them all", func(a *Arena) string { return filled(a.Fill(LLDPGroup, 1)) }},
	{"BPDUs, sent to a switch behind the bridge", func(a *Arena) string {
		own := MACOf(a.T, a.Attacker, "eth0")
		message := bpdu(own)
		return outcome(a.reaches("br0", a.Attacker, a.switched, "eth0", Ethernet(bridgeGroup, own, uint16(len(message)), message)))
	}},
	{"BPDUs, to become the root of the bridge's spanning tree", func(a *Arena) string { return outcome(a.IsRoot()) }},
}
