// Package attack makes the attacks of docs/isolation.md. NewArena makes the containers, and Attacks are
// the rows of the table on this page.
package attack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// Arena is a host on which tests make attacks. The attacker, the neighbour, and a switch behind a
// bridge port are on the bridge br0. The container in the field other is on another network. The
// containers in the fields first and second are on a layer 2 network, with the bridge br2: the first
// one attacks the second one. They are nil if the setting is not allowed on a layer 2 network.
type Arena struct {
	T                                         testing.TB
	Host                                      *setup.Namespace
	Attacker                                  *setup.Namespace
	neighbour, other, switched, first, second *setup.Namespace
}

// These are the IP addresses in an arena.
var (
	attacker4, neighbour4, gateway4 = netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("10.88.0.3"), netip.MustParseAddr("10.88.0.1")
	attacker6, neighbour6, gateway6 = netip.MustParseAddr("fd88::2"), netip.MustParseAddr("fd88::3"), netip.MustParseAddr("fd88::1")
)

// object is a JSON object.
type object = map[string]any

// dual returns the configuration of a dual-stack network.
func dual(name, bridge, pool4, pool6 string) object {
	return object{"name": name, "type": "bridgeveth", "bridge": bridge, "isDefaultGateway": true, "ipMasq": true, "ipam": object{
		"type": "ipam-simple", "ranges": [][]object{{{"subnet": pool4}}, {{"subnet": pool6}}},
	}}
}

// NewArena makes the containers of an arena. The function attach attaches a container to a network,
// with host ports. The parameter keys has further keys for the networks of the attacker.
func NewArena(t testing.TB, host *setup.Namespace, keys object, attach func(container string, conf object, hostPorts ...int)) *Arena {
	t.Helper()
	a := &Arena{T: t, Host: host}
	with := func(conf object) object {
		maps.Copy(conf, keys)
		return conf
	}
	join := func(name string, conf object, hostPorts ...int) *setup.Namespace {
		c := setuptest.Container(t, name)
		attach(name, conf, hostPorts...)
		return c
	}
	a.Attacker = join("c1", with(dual("net", "br0", "10.88.0.0/24", "fd88::/64")), 8080)
	a.neighbour = join("c2", with(dual("net", "br0", "10.88.0.0/24", "fd88::/64")))
	a.other = join("c3", dual("other", "br1", "10.89.0.0/24", "fd89::/64"))
	if keys["ipspoofchk"] == nil {
		a.first = join("c4", with(object{"name": "lan", "type": "bridgeveth", "bridge": "br2"}))
		a.second = join("c5", with(object{"name": "lan", "type": "bridgeveth", "bridge": "br2"}))
	}
	a.switched = setuptest.Container(t, "switch")
	setuptest.Run(t, "ip", "link", "add", "switched", "master", "br0", "up", "type", "veth", "peer", "name", "eth0", "netns", "switch")
	setuptest.In(t, a.switched, "ip", "link", "set", "eth0", "up")
	// By default, the kernel does not overwrite a neighbour entry that is younger than a second.
	// Attacks that follow each other quickly would then fail.
	setuptest.SetSysctl(t, "ipv4/neigh/br0/locktime", "0")
	setuptest.In(t, a.neighbour, "sh", "-c", "echo 0 >/proc/sys/net/ipv4/neigh/eth0/locktime")
	for _, to := range []string{"10.88.0.1", "fd88::1"} {
		if !setuptest.Ping(t, a.Attacker, to) || !setuptest.Ping(t, a.neighbour, to) {
			t.Fatalf("no answer from %s", to)
		}
	}
	harness.Serve(t, a.neighbour, 80)
	harness.Serve(t, a.Host, 9999)
	IntoLoopback(t, a.Attacker, "10.88.0.1")
	return a
}

// IntoLoopback configures a container's namespace, or that of a machine on the LAN, so that it
// sends packets for 127.0.0.7 to the host.
func IntoLoopback(t testing.TB, c *setup.Namespace, host string) {
	t.Helper()
	setuptest.In(t, c, "ip", "route", "add", "127.0.0.7/32", "via", host)
	setuptest.In(t, c, "sh", "-c", "ip addr del 127.0.0.1/8 dev lo; echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet")
}

// send sends frames from a container's eth0, and then one more frame that no setting forbids. It
// returns when the host has received this last frame, so the host has then handled the other frames
// too.
func (a *Arena) send(from *setup.Namespace, bridge string, frames ...[]byte) {
	a.T.Helper()
	mac := MACOf(a.T, from, "eth0")
	arrived := ReadFrames(a.T, a.Host, bridge)
	defer arrived.Close()
	fd := PacketSocket(a.T, from, "eth0")
	defer unix.Close(fd)
	last := Ethernet(everybody, mac, unix.ETH_P_ARP, arpPacket(1, mac, attacker4, make(net.HardwareAddr, 6), gateway4))
	for _, frame := range append(frames, last) {
		if _, err := unix.Write(fd, append(frame, make([]byte, max(0, 60-len(frame)))...)); err != nil {
			a.T.Fatal(err)
		}
	}
	harness.Await(a.T, "the frame behind the attack", func() bool {
		return arrived.Has(func(frame []byte) bool { return bytes.HasPrefix(frame, last) })
	})
}

// poison sends an ARP reply, or a neighbour advertisement, that says that an IP address belongs to
// the attacker's MAC address. The victim is the host or the neighbour. poison reports whether the
// victim's neighbour entry for the IP address then has the attacker's MAC address.
func (a *Arena) poison(victim *setup.Namespace, address netip.Addr) bool {
	a.T.Helper()
	link := "eth0"
	if victim == a.Host {
		link = "br0"
	}
	own, to := MACOf(a.T, a.Attacker, "eth0"), MACOf(a.T, victim, link)
	right := map[netip.Addr]net.HardwareAddr{gateway4: MACOf(a.T, a.Host, "br0"), gateway6: MACOf(a.T, a.Host, "br0"),
		neighbour4: MACOf(a.T, a.neighbour, "eth0"), neighbour6: MACOf(a.T, a.neighbour, "eth0")}[address]
	setuptest.In(a.T, victim, "ip", "neigh", "replace", address.String(), "lladdr", right.String(), "nud", "stale", "dev", link)
	victims := map[netip.Addr]netip.Addr{gateway4: neighbour4, gateway6: neighbour6, neighbour4: gateway4, neighbour6: gateway6}[address]
	frame := Ethernet(to, own, unix.ETH_P_ARP, arpPacket(2, own, address, to, victims))
	if address.Is6() {
		frame = Ethernet(to, own, unix.ETH_P_IPV6, icmp6(attacker6, victims, neighbourAdvertisement(address, own)))
	}
	a.send(a.Attacker, "br0", frame)
	fooled := neighbourMAC(a.T, victim, link, address.String()) == own.String()
	setuptest.In(a.T, victim, "ip", "neigh", "del", address.String(), "dev", link)
	return fooled
}

// takeOver sends, from the attacker, a frame with the neighbour's MAC address as its source. It
// reports whether the bridge then forwards frames for the neighbour to the attacker.
func (a *Arena) takeOver() bool {
	a.T.Helper()
	mac := MACOf(a.T, a.neighbour, "eth0")
	port := setup.Attachment{Network: "net", Container: "c1", Interface: "eth0"}.Port()
	taken := false
	for tries := 0; tries < 5 && !taken; tries++ { // a frame that the neighbour sends in between takes the address back
		a.send(a.Attacker, "br0", Ethernet(everybody, mac, unix.ETH_P_IP, UDP4(attacker4, gateway4, 9, 9)))
		table := setuptest.Run(a.T, "bridge", "fdb", "show", "br", "br0")
		taken = strings.Contains(table, mac.String()+" dev "+port+" ")
	}
	if !setuptest.Ping(a.T, a.neighbour, "10.88.0.1") {
		a.T.Error("the bridge does not learn the neighbour's MAC again")
	}
	return taken
}

// Unprotected checks that router advertisements have an effect if nothing drops them. It sets
// accept_ra on the host and on the neighbour. Both must then use the attacker as their router.
func (a *Arena) Unprotected() {
	a.T.Helper()
	setuptest.SetSysctl(a.T, "ipv6/conf/br0/accept_ra", "2") // 2, because the host forwards IPv6
	setuptest.In(a.T, a.neighbour, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra")
	if !a.routed("br0", a.Attacker, a.neighbour, "eth0") || !a.routed("br0", a.Attacker, a.Host, "br0") {
		a.T.Error("the router advertisements have no effect, also without protection")
	}
	setuptest.SetSysctl(a.T, "ipv6/conf/br0/accept_ra", "0")
	setuptest.In(a.T, a.neighbour, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra")
	setuptest.Run(a.T, "ip", "-6", "route", "flush", "proto", "ra")
	setuptest.In(a.T, a.neighbour, "ip", "-6", "route", "flush", "proto", "ra")
}

// spoof sends a packet from the attacker with the neighbour's IP address as its source. It reports
// whether the host receives the packet.
func (a *Arena) spoof(packet []byte) bool {
	a.T.Helper()
	to, from := MACOf(a.T, a.Host, "br0"), MACOf(a.T, a.Attacker, "eth0")
	kind := uint16(unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		kind = unix.ETH_P_IPV6
	}
	return a.reaches("br0", a.Attacker, a.Host, "br0", Ethernet(to, from, kind, packet))
}

// reaches sends a frame from a container's eth0, and reports whether the frame arrives at a link of
// another namespace.
func (a *Arena) reaches(bridge string, from, to *setup.Namespace, link string, frame []byte) bool {
	a.T.Helper()
	arrived := ReadFrames(a.T, to, link)
	defer arrived.Close()
	a.send(from, bridge, frame)
	return arrived.Has(func(got []byte) bool { return bytes.HasPrefix(got, frame) })
}

// Sources is the number of MAC addresses from which the method Fill sends frames. The number is
// larger than the limit that ADD sets for the addresses that a bridge learns.
const Sources = 6000

// Fill sends frames from 6,000 MAC addresses (see Sources). It returns how many of these addresses
// the bridge has learned.
func (a *Arena) Fill(to net.HardwareAddr, kind byte) int {
	a.T.Helper()
	var frames [][]byte
	for i := range Sources {
		mac := binary.BigEndian.AppendUint32([]byte{0x0e, kind}, uint32(i))
		frames = append(frames, Ethernet(to, mac, unix.ETH_P_IP, UDP4(attacker4, gateway4, 9, 9)))
	}
	for some := range slices.Chunk(frames, 100) { // more frames would not fit into the receiver's buffer
		a.send(a.Attacker, "br0", some...)
	}
	table := setuptest.Run(a.T, "bridge", "fdb", "show", "br", "br0")
	// A part of another address may look the same, so only the beginning of a line counts.
	learned := strings.Count("\n"+table, fmt.Sprintf("\n0e:%02x:00:00:", kind))
	if learned > 0 && learned < 10 { // neither none nor all; the addresses help to find the cause
		a.T.Log(table)
	}
	setuptest.Run(a.T, "ip", "link", "set", "br0", "type", "bridge", "fdb_flush")
	return learned
}

// filled returns the text of a table cell in docs/isolation.md. The parameter learned is a result
// of the method Fill.
func filled(learned int) string {
	switch {
	case learned == 0:
		return Fails
	case learned == Sources:
		return Succeeds
	case learned <= 4096 && learned > 4000: // the bridge has learned some other addresses too
		return Capped
	}
	return fmt.Sprint(learned)
}

// IsRoot switches STP on for the bridge and sends a BPDU from the attacker. It reports whether
// the attacker is then the root of the spanning tree. If not, IsRoot waits until the bridge has
// disabled the attacker's port.
func (a *Arena) IsRoot() (root bool) {
	a.T.Helper()
	setuptest.Run(a.T, "ip", "link", "set", "br0", "type", "bridge", "stp_state", "1")
	own := MACOf(a.T, a.Attacker, "eth0")
	fd := PacketSocket(a.T, a.Attacker, "eth0")
	defer unix.Close(fd)
	message := bpdu(own)
	if _, err := unix.Write(fd, Ethernet(bridgeGroup, own, uint16(len(message)), message)); err != nil {
		a.T.Fatal(err)
	}
	harness.Await(a.T, "the bridge's answer to the BPDU", func() bool {
		root = !strings.Contains(setuptest.Run(a.T, "ip", "-d", "link", "show", "br0"), " root_port 0 ")
		return root || strings.Contains(setuptest.Run(a.T, "bridge", "link", "show"), "state disabled")
	})
	return root
}

// routed sends a router advertisement from a namespace. It reports whether the victim then has a
// default route through this namespace.
func (a *Arena) routed(bridge string, router, victim *setup.Namespace, link string) bool {
	a.T.Helper()
	mac := MACOf(a.T, router, "eth0")
	from, to := linkLocalOf(mac), netip.MustParseAddr("ff02::1")
	a.send(router, bridge, Ethernet(allNodes, mac, unix.ETH_P_IPV6, icmp6(from, to, routerAdvertisement())))
	return strings.Contains(setuptest.In(a.T, victim, "ip", "-6", "route", "show", "default", "dev", link), "via "+from.String())
}
