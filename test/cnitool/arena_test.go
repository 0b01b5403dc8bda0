package cnitool

import (
	"bytes"
	"encoding/binary"
	"fmt"
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

// arena is a host on which the tests make attacks. The attacker, the neighbour, and a switch behind
// a bridge port are on the bridge br0. The container in the field other is on another network. The
// containers in the fields first and second are on a layer 2 network: the first one attacks the
// second one.
type arena struct {
	*node
	attacker, neighbour, other, switched, first, second *setup.Namespace
	layer2                                              bool // the setting is allowed on a layer 2 network
}

// These are the IP addresses in an arena.
var (
	attacker4, neighbour4, gateway4 = netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("10.88.0.3"), netip.MustParseAddr("10.88.0.1")
	attacker6, neighbour6, gateway6 = netip.MustParseAddr("fd88::2"), netip.MustParseAddr("fd88::3"), netip.MustParseAddr("fd88::1")
)

func newArena(t testing.TB, keys object) *arena {
	t.Helper()
	conf := dual.with(keys)
	a := &arena{node: newNode(t, conf, "nft"), layer2: keys["ipspoofchk"] == nil}
	c := a.containers(5)
	a.attacker, a.neighbour, a.other, a.first, a.second = c[0], c[1], c[2], c[3], c[4]
	on("ADD", 1, publishing(conf, object{"hostPort": 8080, "containerPort": 80})).run(t).ok(t)
	on("ADD", 2, conf).run(t).ok(t)
	on("ADD", 3, dual.with(object{"name": "other", "bridge": "br1", "ipam": object{
		"type": "ipam-simple", "ranges": [][]object{{{"subnet": "10.89.0.0/24"}}, {{"subnet": "fd89::/64"}}},
	}})).run(t).ok(t)
	if a.layer2 {
		for i := 4; i <= 5; i++ {
			on("ADD", i, object{"name": "lan", "type": "bridgeveth", "bridge": "br2"}.with(keys)).run(t).ok(t)
		}
	}
	a.switched = setuptest.Container(t, "switch")
	setuptest.Run(t, "ip", "link", "add", "switched", "master", "br0", "up", "type", "veth", "peer", "name", "eth0", "netns", "switch")
	setuptest.In(t, a.switched, "ip", "link", "set", "eth0", "up")
	// By default, the kernel does not overwrite a neighbour entry that is younger than a second.
	// Attacks that follow each other quickly would then fail.
	setuptest.SetSysctl(t, "ipv4/neigh/br0/locktime", "0")
	setuptest.In(t, a.neighbour, "sh", "-c", "echo 0 >/proc/sys/net/ipv4/neigh/eth0/locktime")
	for _, to := range []string{"10.88.0.1", "fd88::1"} {
		if !setuptest.Ping(t, a.attacker, to) || !setuptest.Ping(t, a.neighbour, to) {
			t.Fatalf("no answer from %s", to)
		}
	}
	return a
}

// send sends frames from a container's eth0, and then one more frame that no setting forbids. It
// returns when the host has received this last frame, so the host has then handled the other frames
// too.
func (a *arena) send(from *setup.Namespace, bridge string, frames ...[]byte) {
	a.t.Helper()
	mac := macOf(a.t, from, "eth0")
	arrived := readFrames(a.t, a.Namespace, bridge)
	defer arrived.close()
	fd := packetSocket(a.t, from)
	defer unix.Close(fd)
	last := ethernet(everybody, mac, unix.ETH_P_ARP, arpPacket(1, mac, attacker4, make(net.HardwareAddr, 6), gateway4))
	for _, frame := range append(frames, last) {
		if _, err := unix.Write(fd, append(frame, make([]byte, max(0, 60-len(frame)))...)); err != nil {
			a.t.Fatal(err)
		}
	}
	harness.Await(a.t, "the frame behind the attack", func() bool {
		return arrived.has(func(frame []byte) bool { return bytes.HasPrefix(frame, last) })
	})
}

// poison sends an ARP reply, or a neighbour advertisement, that says that an IP address belongs to
// the attacker's MAC address. The victim is the host or the neighbour. poison reports whether the
// victim's neighbour entry for the IP address then has the attacker's MAC address.
func (a *arena) poison(victim *setup.Namespace, address netip.Addr) bool {
	a.t.Helper()
	link := "eth0"
	if victim == a.Namespace {
		link = "br0"
	}
	own, to := macOf(a.t, a.attacker, "eth0"), macOf(a.t, victim, link)
	right := map[netip.Addr]net.HardwareAddr{gateway4: macOf(a.t, a.Namespace, "br0"), gateway6: macOf(a.t, a.Namespace, "br0"),
		neighbour4: macOf(a.t, a.neighbour, "eth0"), neighbour6: macOf(a.t, a.neighbour, "eth0")}[address]
	setuptest.In(a.t, victim, "ip", "neigh", "replace", address.String(), "lladdr", right.String(), "nud", "stale", "dev", link)
	victims := map[netip.Addr]netip.Addr{gateway4: neighbour4, gateway6: neighbour6, neighbour4: gateway4, neighbour6: gateway6}[address]
	frame := ethernet(to, own, unix.ETH_P_ARP, arpPacket(2, own, address, to, victims))
	if address.Is6() {
		frame = ethernet(to, own, unix.ETH_P_IPV6, icmp6(attacker6, victims, neighbourAdvertisement(address, own)))
	}
	a.send(a.attacker, "br0", frame)
	fooled := neighbourMAC(a.t, victim, link, address.String()) == own.String()
	setuptest.In(a.t, victim, "ip", "neigh", "del", address.String(), "dev", link)
	return fooled
}

// takeOver sends, from the attacker, a frame with the neighbour's MAC address as its source. It
// reports whether the bridge then forwards frames for the neighbour to the attacker.
func (a *arena) takeOver() bool {
	a.t.Helper()
	mac := macOf(a.t, a.neighbour, "eth0")
	taken := false
	for tries := 0; tries < 5 && !taken; tries++ { // a frame that the neighbour sends in between takes the address back
		a.send(a.attacker, "br0", ethernet(everybody, mac, unix.ETH_P_IP, udp4(attacker4, gateway4, 9, 9)))
		table := setuptest.Run(a.t, "bridge", "fdb", "show", "br", "br0")
		taken = strings.Contains(table, mac.String()+" dev "+portOf+" ")
	}
	if !setuptest.Ping(a.t, a.neighbour, "10.88.0.1") {
		a.t.Error("the bridge does not learn the neighbour's MAC again")
	}
	return taken
}

// unprotected checks that router advertisements have an effect if nothing drops them. It sets
// accept_ra on the host and on the neighbour. Both must then use the attacker as their router.
func (a *arena) unprotected() {
	a.t.Helper()
	setuptest.SetSysctl(a.t, "ipv6/conf/br0/accept_ra", "2") // 2, because the host forwards IPv6
	setuptest.In(a.t, a.neighbour, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra")
	if !a.routed("br0", a.attacker, a.neighbour, "eth0") || !a.routed("br0", a.attacker, a.Namespace, "br0") {
		a.t.Error("the router advertisements have no effect, also without protection")
	}
	setuptest.SetSysctl(a.t, "ipv6/conf/br0/accept_ra", "0")
	setuptest.In(a.t, a.neighbour, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra")
	setuptest.Run(a.t, "ip", "-6", "route", "flush", "proto", "ra")
	setuptest.In(a.t, a.neighbour, "ip", "-6", "route", "flush", "proto", "ra")
}

// spoof sends a packet from the attacker with the neighbour's IP address as its source. It reports
// whether the host receives the packet.
func (a *arena) spoof(packet []byte) bool {
	a.t.Helper()
	to, from := macOf(a.t, a.Namespace, "br0"), macOf(a.t, a.attacker, "eth0")
	kind := uint16(unix.ETH_P_IP)
	if packet[0]>>4 == 6 {
		kind = unix.ETH_P_IPV6
	}
	return a.reaches("br0", a.attacker, a.Namespace, "br0", ethernet(to, from, kind, packet))
}

// reaches sends a frame from a container's eth0, and reports whether the frame arrives at a link of
// another namespace.
func (a *arena) reaches(bridge string, from, to *setup.Namespace, link string, frame []byte) bool {
	a.t.Helper()
	arrived := readFrames(a.t, to, link)
	defer arrived.close()
	a.send(from, bridge, frame)
	return arrived.has(func(got []byte) bool { return bytes.HasPrefix(got, frame) })
}

// sources is the number of MAC addresses from which the method fill sends frames. The number is
// larger than the limit that ADD sets for the addresses that a bridge learns.
const sources = 6000

// fill sends frames from 6,000 MAC addresses (see sources). It returns how many of these addresses
// the bridge has learned.
func (a *arena) fill(to net.HardwareAddr, kind byte) int {
	a.t.Helper()
	var frames [][]byte
	for i := range sources {
		mac := binary.BigEndian.AppendUint32([]byte{0x0e, kind}, uint32(i))
		frames = append(frames, ethernet(to, mac, unix.ETH_P_IP, udp4(attacker4, gateway4, 9, 9)))
	}
	for some := range slices.Chunk(frames, 100) { // more frames would not fit into the receiver's buffer
		a.send(a.attacker, "br0", some...)
	}
	table := setuptest.Run(a.t, "bridge", "fdb", "show", "br", "br0")
	learned := strings.Count(table, fmt.Sprintf("0e:%02x:", kind))
	setuptest.Run(a.t, "ip", "link", "set", "br0", "type", "bridge", "fdb_flush")
	return learned
}

// filled returns the text of a table cell in docs/isolation.md. The parameter learned is a result
// of the method fill.
func filled(learned int) string {
	switch {
	case learned == 0:
		return fails
	case learned == sources:
		return succeeds
	case learned <= 4096 && learned > 4000: // the bridge has learned some other addresses too
		return capped
	}
	return fmt.Sprint(learned)
}

// isRoot switches STP on for the bridge and sends a BPDU from the attacker. It reports whether
// the attacker is then the root of the spanning tree. If not, isRoot waits until the bridge has
// disabled the attacker's port.
func (a *arena) isRoot() (root bool) {
	a.t.Helper()
	setuptest.Run(a.t, "ip", "link", "set", "br0", "type", "bridge", "stp_state", "1")
	own := macOf(a.t, a.attacker, "eth0")
	fd := packetSocket(a.t, a.attacker)
	defer unix.Close(fd)
	message := bpdu(own)
	if _, err := unix.Write(fd, ethernet(bridgeGroup, own, uint16(len(message)), message)); err != nil {
		a.t.Fatal(err)
	}
	harness.Await(a.t, "the bridge's answer to the BPDU", func() bool {
		root = !strings.Contains(setuptest.Run(a.t, "ip", "-d", "link", "show", "br0"), " root_port 0 ")
		return root || strings.Contains(setuptest.Run(a.t, "bridge", "link", "show"), "state disabled")
	})
	return root
}

// routed sends a router advertisement from a namespace. It reports whether the victim then has a
// default route through this namespace.
func (a *arena) routed(bridge string, router, victim *setup.Namespace, link string) bool {
	a.t.Helper()
	mac := macOf(a.t, router, "eth0")
	from, to := linkLocalOf(mac), netip.MustParseAddr("ff02::1")
	a.send(router, bridge, ethernet(allNodes, mac, unix.ETH_P_IPV6, icmp6(from, to, routerAdvertisement())))
	return strings.Contains(setuptest.In(a.t, victim, "ip", "-6", "route", "show", "default", "dev", link), "via "+from.String())
}
