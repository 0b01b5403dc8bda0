package cnitool

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/internal/ptrace"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/attack"
)

// fast is the configuration of a dual-stack network with masquerade and the fast path.
var fast = dual.with(object{"fastPath": true})

// newFastNode calls newNode for a network with the fast path. If the kernel has no flowtables,
// newFastNode checks that ADD reports this and leaves nothing. It then skips the test.
func newFastNode(t *testing.T, conf object) *node {
	t.Helper()
	n := newNode(t, conf, "nft")
	if n.CheckFastPath() == nil {
		return n
	}
	before := setuptest.Dump(t)
	setuptest.Container(t, "none")
	f := call{verb: "ADD", container: "none", netns: "/run/netns/none", ifname: "eth0", conf: fast}.run(t).failed(t)
	if f.Code != 7 || !strings.Contains(f.Msg, "fastPath: ") || !strings.Contains(f.Msg, "CONFIG_NF_FLOW_TABLE_INET") {
		t.Errorf("got %+v, want code 7, the key and the kernel's option", f)
	}
	setuptest.Same(t, before, "a failed ADD left traces")
	t.Skip("LISTED SKIP: no flowtables in this kernel; make test-vm has one with them")
	return nil
}

// TestFastPathAuto checks "fastPath": "auto". If the kernel has no flowtables, ADD attaches the
// container without the fast path, and STATUS reports this.
func TestFastPathAuto(t *testing.T) {
	t.Parallel()
	conf := dual.with(object{"fastPath": "auto"})
	n := newNode(t, conf, "nft")
	c := n.containers(1)[0]
	before := setuptest.Dump(t)
	n.must("add", c)
	n.must("check", c)
	lacking := n.CheckFastPath() != nil
	if said := string(on("STATUS", 1, conf).run(t).ok(t).stderr); strings.Contains(said, "CONFIG_NF_FLOW_TABLE_INET") != lacking {
		t.Errorf("STATUS on a kernel without flowtables (%v) says %q", lacking, said)
	}
	if has := strings.Contains(setuptest.Run(t, "nft", "list", "ruleset"), "flow add @fastpath"); has == lacking {
		t.Errorf("the rules have a fast path: %v; the kernel lacks it: %v", has, lacking)
	}
	n.must("del", c)
	setuptest.Same(t, before, "DEL left traces")
}

// echo starts servers for TCP and UDP on fastPort in a namespace. They send back everything that
// they receive.
func echo(t testing.TB, ns *setup.Namespace) {
	t.Helper()
	listen(t, ns, fastPort,
		func(c net.Conn) { _, _ = io.Copy(c, c) }, // a failure is a missing answer at the client
		func(message []byte, _ net.Addr) []byte { return message })
}

// exchange sends messages, and waits for an answer after each message. The parameter size is the
// length of a message in bytes. exchange returns the number of answers, and stops at the first
// missing answer.
func exchange(conn net.Conn, messages, size int) (answers int) {
	b := make([]byte, size)
	for range messages {
		_ = conn.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
		if _, err := conn.Write(b); err != nil {
			return answers
		}
		if _, err := io.ReadFull(conn, b); err != nil {
			return answers
		}
		answers++
	}
	return answers
}

// countForwarded adds a FORWARD chain that the kernel runs before all others. The chain counts the
// forwarded packets. forwarded returns the number of packets since its previous call.
func countForwarded(t testing.TB) (forwarded func() int) {
	t.Helper()
	setuptest.Run(t, "nft", "add table inet counting; add chain inet counting forward { type filter hook forward priority -500; }; add counter inet counting seen; add rule inet counting forward counter name seen")
	return func() int {
		out := setuptest.Run(t, "nft", "reset", "counter", "inet", "counting", "seen")
		_, rest, _ := strings.Cut(out, "packets ")
		number, _, _ := strings.Cut(rest, " ")
		count, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("counter: %s", out)
		}
		return count
	}
}

// fastPort is the port of the echo servers.
const fastPort = 7000

// isFast reports whether a connection takes the fast path, that is, whether its packets pass no
// FORWARD chain. It fails the test if an answer is lost.
func isFast(t testing.TB, conn net.Conn, forwarded func() int) bool {
	t.Helper()
	for range 6 { // several attempts, because the kernel may send other packets at the same time, such as neighbour solicitations
		if got := exchange(conn, 3, 100); got != 3 {
			t.Fatalf("%d answers to 3 messages", got)
		}
		forwarded()
		if got := exchange(conn, 10, 100); got != 10 {
			t.Fatalf("%d answers to 10 messages", got)
		}
		if forwarded() == 0 {
			return true
		}
	}
	return false
}

// addressesOf returns the IPv4 and the IPv6 address of a container, each with fastPort as its port.
func addressesOf(t testing.TB, c *setup.Namespace) (v4, v6 string) {
	t.Helper()
	addresses, err := setup.Addresses(c, "eth0")
	if err != nil || len(addresses) != 2 {
		t.Fatalf("addresses %v: %v", addresses, err)
	}
	return netip.AddrPortFrom(addresses[0].Addr(), fastPort).String(), netip.AddrPortFrom(addresses[1].Addr(), fastPort).String()
}

// TestFastPath checks that packets of established connections do not pass the FORWARD chains, on
// each path that packets may take. Without the key fastPath, they must pass the chains.
func TestFastPath(t *testing.T) {
	t.Parallel()
	published := func(conf object) object {
		return publishing(conf, object{"hostPort": 8080, "containerPort": fastPort}, object{"hostPort": 8080, "containerPort": fastPort, "protocol": "udp"})
	}
	n := newFastNode(t, fast)
	outside := n.outside(false)
	c := n.containers(3)
	// Connections between the bridges must not be masqueraded. Otherwise, with br_netfilter, their
	// replies would not take the fast path: conntrack restores the destination of a reply before
	// the flowtable sees the reply. The flowtable then does not find the connection.
	first := fast.with(object{"masqExclude": []string{"10.89.0.0/24", "fd89::/64"}})
	second := fast.with(object{"name": "second", "bridge": "br1", "ipMasq": false, "ipam": object{"type": "ipam-simple", "ranges": [][]object{
		{{"subnet": "10.89.0.0/24"}}, {{"subnet": "fd89::/64"}},
	}}})
	before := setuptest.Dump(t)
	forwarded := countForwarded(t)
	echo(t, outside)
	echo(t, c[0])
	echo(t, c[2])
	for _, state := range []struct {
		name string
		keys object
		fast bool
	}{{"off", object{"fastPath": false}, false}, {"on", nil, true}, {"off again", object{"fastPath": false}, false}} {
		first, second := published(first.with(state.keys)), second.with(state.keys)
		on("ADD", 1, first).run(t).ok(t)
		on("ADD", 2, first.with(object{"runtimeConfig": object{}})).run(t).ok(t)
		on("ADD", 3, second).run(t).ok(t)
		first4, first6 := addressesOf(t, c[0])
		third4, third6 := addressesOf(t, c[2])
		for _, way := range []struct {
			name string
			from *setup.Namespace
			to   string
		}{
			{"container to outside, IPv4", c[0], "192.0.2.2:7000"},
			{"container to outside, IPv6", c[0], "[2001:db8::2]:7000"},
			{"outside to a host port, IPv4", outside, "192.0.2.1:8080"},
			{"outside to a host port, IPv6", outside, "[2001:db8::1]:8080"},
			{"between two bridges, IPv4", c[0], third4},
			{"between two bridges, IPv6", c[0], third6},
		} {
			for _, network := range []string{"tcp", "udp"} {
				conn := dial(t, way.from, network, way.to)
				if got := isFast(t, conn, forwarded); got != state.fast {
					t.Errorf("fast path %s: %s of %s takes it: %v", state.name, network, way.name, got)
				}
				conn.Close()
			}
		}
		for _, to := range []string{first4, first6} {
			if got := exchange(dial(t, c[1], "tcp", to), 10, 100); got != 10 {
				t.Errorf("fast path %s: %d answers from %s on the same bridge", state.name, got, to)
			}
		}
		on("DEL", 1, first).run(t).ok(t)
		on("DEL", 2, first).run(t).ok(t)
		on("DEL", 3, second).run(t).ok(t)
	}
	setuptest.Run(t, "nft", "delete", "table", "inet", "counting")
	setuptest.Same(t, before, "DEL left traces")
}

// TestFastPathClosed checks that the fast path does not carry packets that rules drop: a reply that
// a chain drops, a new connection from outside (`inbound`), and a packet with a false source
// address (`ipspoofchk`).
func TestFastPathClosed(t *testing.T) {
	t.Parallel()
	conf := fast.with(object{"inbound": "established", "ipspoofchk": true})
	n := newFastNode(t, conf)
	outside := n.outside(true)
	c := n.containers(2)
	forwarded := countForwarded(t)
	echo(t, outside)
	echo(t, c[0])
	on("ADD", 1, conf).run(t).ok(t)
	on("ADD", 2, conf).run(t).ok(t)

	for _, to := range []string{"192.0.2.2:7000", "[2001:db8::2]:7000"} {
		if !isFast(t, dial(t, c[0], "udp", to), forwarded) {
			t.Errorf("%s: not on the fast path: the test proves nothing", to)
		}
	}
	for _, to := range []string{"10.88.0.2", "fd88::2"} {
		if got := ask(t, outside, "udp", to, fastPort); got != "" {
			t.Errorf("outside has connected to %s", to)
		}
	}

	flow := dial(t, c[0], "udp", "192.0.2.2:7000")
	if !isFast(t, flow, forwarded) {
		t.Error("not on the fast path: the test proves nothing")
	}
	arrived := attack.ReadFrames(t, n.Namespace, "uplink")
	defer arrived.Close()
	source := flow.LocalAddr().(*net.UDPAddr).AddrPort()
	spoofed := attack.UDP4(source.Addr(), netip.MustParseAddr("192.0.2.2"), source.Port(), fastPort)
	sender := packetSocket(t, c[1])
	defer unix.Close(sender)
	frame := attack.Ethernet(attack.MACOf(t, n.Namespace, "br0"), attack.MACOf(t, c[1], "eth0"), unix.ETH_P_IP, spoofed)
	if _, err := unix.Write(sender, frame); err != nil {
		t.Fatal(err)
	}
	exchange(flow, 1, 100) // the bridge delivers frames in order, so the spoofed frame has been handled by now
	if arrived.Has(func(got []byte) bool { return len(got) == len(frame) && bytes.Equal(got[36:38], spoofed[22:24]) }) {
		t.Error("a packet with the source address of another container has left by that container's flow")
	}

	for _, program := range []string{"iptables", "ip6tables"} {
		setuptest.Run(t, program, "-I", "FORWARD", "-i", "uplink", "-p", "udp", "-j", "DROP")
	}
	for _, to := range []string{"192.0.2.2:7000", "[2001:db8::2]:7000"} {
		blocked := dial(t, c[0], "udp", to)
		for range 5 {
			if exchange(blocked, 1, 100) != 0 {
				t.Errorf("%s: a reply has arrived that FORWARD drops", to)
			}
		}
	}
}

// TestFastPathSlow checks that the kernel's normal forwarding handles packets that the fast path
// cannot handle: packets larger than the MTU of the uplink, packets whose TTL ends, and packets
// after a change of the route.
func TestFastPathSlow(t *testing.T) {
	t.Parallel()
	n := newFastNode(t, fast)
	outside := n.outside(false)
	c := n.containers(1)[0]
	on("ADD", 1, fast).run(t).ok(t)
	forwarded := countForwarded(t)
	echo(t, outside)
	setuptest.Run(t, "ip", "link", "set", "uplink", "mtu", "1300")
	setuptest.In(t, outside, "ip", "link", "set", "eth0", "mtu", "1300")
	for _, network := range []string{"udp4", "udp6"} {
		address := map[string]string{"udp4": "192.0.2.2:7000", "udp6": "[2001:db8::2]:7000"}[network]
		conn := dial(t, c, network, address).(*net.UDPConn)
		if !isFast(t, conn, forwarded) {
			t.Errorf("%s: not on the fast path: the test proves nothing", network)
		}
		for range 3 {
			exchange(conn, 1, 1400) // fails until the container has learned the MTU from an ICMP message of the slow path
		}
		if got := exchange(conn, 3, 1400); got != 3 {
			t.Errorf("%s: %d of 3 answers to packets larger than the MTU", network, got)
		}
		arrived := attack.ReadFrames(t, outside, "eth0")
		hops := func(count int) {
			t.Helper()
			raw, err := conn.SyscallConn()
			if err == nil {
				err = raw.Control(func(fd uintptr) {
					err = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, count), err)
					if network == "udp4" {
						err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, count)
					}
				})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		hops(1)
		if got := exchange(conn, 1, 77); got != 0 {
			t.Errorf("%s: an answer to a packet whose TTL ends at the host", network)
		}
		hops(64)
		if arrived.Has(func(frame []byte) bool {
			return len(frame) == map[string]int{"udp4": 14 + 20 + 8 + 77, "udp6": 14 + 40 + 8 + 77}[network]
		}) {
			t.Errorf("%s: the packet has left the host", network)
		}
		arrived.Close()
	}

	conn := dial(t, c, "udp", "192.0.2.2:7000")
	if !isFast(t, conn, forwarded) {
		t.Error("not on the fast path: the test proves nothing")
	}
	setuptest.Run(t, "ip", "route", "add", "blackhole", "192.0.2.2/32")
	if exchange(conn, 1, 100) != 0 {
		t.Error("the flow goes on by the former route")
	}
}

// TestFastPathNextHolder gives the address of a deleted container to another container. It checks
// that the new container gets no packets of the deleted container's connections, whether or not DEL
// was called for the deleted container.
func TestFastPathNextHolder(t *testing.T) {
	t.Parallel()
	one := fast.with(object{"ipam": object{"type": "ipam-simple", "ranges": [][]object{
		{{"subnet": "10.88.0.0/30"}}, {{"subnet": "fd88::/126"}},
	}}})
	conf := publishing(one, object{"hostPort": 8080, "containerPort": fastPort, "protocol": "udp"})
	n := newFastNode(t, conf)
	outside := n.outside(false)
	c := n.containers(2)
	forwarded := countForwarded(t)
	echo(t, outside)
	echo(t, c[0])
	for _, ended := range []string{"by DEL", "without DEL"} {
		result := on("ADD", 1, conf).run(t).ok(t).stdout
		out := dial(t, c[0], "udp", "192.0.2.2:7000")
		in := dial(t, outside, "udp", "192.0.2.1:8080")
		for _, conn := range []net.Conn{out, in} {
			if !isFast(t, conn, forwarded) {
				t.Error("not on the fast path: the test proves nothing")
			}
		}
		if ended == "by DEL" {
			on("DEL", 1, conf.with(object{"prevResult": json.RawMessage(result)})).run(t).ok(t)
			if left := setuptest.Run(t, "sh", "-c", "grep 10.88.0.2 /proc/net/nf_conntrack || true"); left != "" {
				t.Errorf("DEL left connections:\n%s", left)
			}
		} else {
			setuptest.Run(t, "sh", "-ec", "for port in $(ls /sys/class/net/br0/brif); do ip link delete $port; done")
			on("GC", 1, conf.with(object{"cni.dev/valid-attachments": []object{}})).run(t).ok(t)
		}
		on("ADD", 2, one).run(t).ok(t)
		arrived := attack.ReadFrames(t, c[1], "eth0")
		for range 3 {
			exchange(in, 1, 77)
		}
		if arrived.Has(func(frame []byte) bool { return len(frame) == 14+20+8+77 }) {
			t.Errorf("a packet to the container that ended %s has reached the next one", ended)
		}
		arrived.Close()
		on("DEL", 2, one).run(t).ok(t)
	}
}

// TestFastPathDevices changes the host's uplinks and the bridge. It checks that CHECK names the
// devices that are missing in the flowtable, and that bvctl repair and ADD add them again.
func TestFastPathDevices(t *testing.T) {
	t.Parallel()
	n := newFastNode(t, fast)
	outside := n.outside(false)
	c := n.containers(2)
	forwarded := countForwarded(t)
	echo(t, outside)
	n.must("add", c[0])
	works := func(after string) {
		t.Helper()
		if !isFast(t, dial(t, c[0], "tcp", "192.0.2.2:7000"), forwarded) {
			t.Errorf("after %s: not on the fast path", after)
		}
	}
	works("ADD")
	if out, _ := bvctl(t, "doctor", "10.88.0.2", "192.0.2.2"); !strings.Contains(out, "connections of 10.88.0.2 skip all chains") {
		t.Errorf("the doctor does not mention the fast path: %s", out)
	}
	for _, change := range []struct{ name, command string }{
		{"another uplink", "ip link add other type dummy; ip addr add 198.51.100.1/24 dev other; ip link set other up"},
		{"rename", "ip link set uplink down; ip link set uplink name wan0; ip link set wan0 up; ip addr add 2001:db8::1/64 dev wan0 nodad"},
		{"nft flush ruleset", "nft flush ruleset; nft add table inet counting; nft 'add chain inet counting forward { type filter hook forward priority -500; }'; nft add counter inet counting seen; nft add rule inet counting forward counter name seen"},
	} {
		setuptest.Run(t, "sh", "-ec", change.command)
		// Linux before 6.16 follows a link that is renamed.
		if err := n.cnitool("check", c[0]); err == nil && change.name != "rename" || err != nil && !strings.Contains(err.Error(), "fastpath") && !strings.Contains(err.Error(), "fast path") {
			t.Errorf("CHECK after %s: %v", change.name, err)
		}
		setuptest.Run(t, filepath.Join(programs, "bvctl"), "repair")
		n.must("check", c[0])
		works(change.name)
	}
	setuptest.Run(t, "sh", "-ec", "nft list ruleset >/run/saved; { echo flush ruleset; cat /run/saved; } >/run/load; nft -f /run/load")
	setuptest.Run(t, filepath.Join(programs, "bvctl"), "repair") // also restores the FORWARD rules: see TestSavedRuleset
	n.must("check", c[0])
	works("a ruleset that was saved and loaded")
	on("ADD", 2, dual).run(t).ok(t) // dual is the same network without the key fastPath
	if left := setuptest.Run(t, "nft", "list", "ruleset"); strings.Contains(left, "fastpath") {
		t.Errorf("the key is taken out, but left is:\n%s", left)
	}
	if isFast(t, dial(t, c[0], "tcp", "192.0.2.2:7000"), forwarded) {
		t.Error("the key is taken out, but packets take the fast path")
	}
}

// TestFastPathLowest checks that connections take the fast path if the uplink is a VLAN link, a bond, or a bridge
// above a bond. From Linux 7.2 on, the flowtable must then also have the links below the uplink.
func TestFastPathLowest(t *testing.T) {
	t.Parallel()
	for name, wire := range map[string]string{
		"bond": "ip link set uplink down; ip link add wan type bond mode active-backup; ip link set uplink master wan; ip link set wan up",
		// With br_netfilter, replies on a bridge do not match the flowtable before Linux 7.2: see docs/fast-path.md.
		"bridge": "echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables; ip link set uplink down; ip link add bond7 type bond mode active-backup; ip link set uplink master bond7; ip link add wan type bridge; ip link set bond7 master wan up; ip link set wan up",
		"VLAN":   "ip link add link uplink name wan type vlan id 5; ip link set wan up; ip -n outside addr flush dev eth0; ip -n outside link add link eth0 name v5 type vlan id 5; ip -n outside link set v5 up; ip -n outside addr add 192.0.2.2/24 dev v5",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newFastNode(t, fast)
			outside := n.outside(false)
			setuptest.Run(t, "sh", "-ec", "ip addr flush dev uplink; "+wire+"; ip addr add 192.0.2.1/24 dev wan")
			c := n.containers(1)[0]
			forwarded := countForwarded(t)
			echo(t, outside)
			n.must("add", c)
			if !isFast(t, dial(t, c, "tcp", "192.0.2.2:7000"), forwarded) {
				t.Errorf("not on the fast path; flowtables:\n%s", setuptest.Run(t, "nft", "list", "flowtables"))
			}
		})
	}
}

// TestFastPathPorts checks that CHECK and bvctl repair notice a port that was taken out of the flowtable, and that
// no name of a port stays in the flowtable after DEL, also if the container's namespace was deleted before, and
// after GC. Kernels before 7.2 need no ports in the flowtable.
func TestFastPathPorts(t *testing.T) {
	t.Parallel()
	n := newFastNode(t, fast)
	c := n.containers(4)
	n.must("add", c...)
	ports := func() int {
		return strings.Count(regexp.MustCompile(`devices = \{[^}]*}`).FindString(setuptest.Run(t, "nft", "list", "flowtable", "ip", "bridgeveth", "fastpath")), "veth")
	}
	switch ports() {
	case 0: // the kernel needs no ports: TestFastPath shows that packets take the fast path
		return
	case 4:
	default:
		t.Errorf("%d ports in the flowtable, want 4", ports())
	}
	port := setup.Attachment{Network: "net", Container: containerID(c[0].Path), Interface: "eth0"}.Port()
	setuptest.Run(t, "nft", "delete flowtable ip bridgeveth fastpath { hook ingress priority 0; devices = { "+port+" }; }")
	if err := n.cnitool("check", c[0]); err == nil || !strings.Contains(err.Error(), "flowtable fastpath") {
		t.Errorf("CHECK without the port in the flowtable: %v", err)
	}
	setuptest.Run(t, filepath.Join(programs, "bvctl"), "repair")
	n.must("check", c[0])
	n.must("del", c[0])
	setuptest.Run(t, "ip", "netns", "delete", "c2")
	n.must("del", c[1])
	if ports() != 2 {
		t.Errorf("%d ports in the flowtable after two DELs, want 2", ports())
	}
	setuptest.Run(t, "ip", "link", "delete", portNameOf(c[2]))
	valid := object{"cni.dev/valid-attachments": []object{{"containerID": containerID(c[3].Path), "ifname": "eth0"}}}
	on("GC", 1, fast.with(valid)).run(t).ok(t)
	if ports() != 1 {
		t.Errorf("%d ports in the flowtable after GC, want 1", ports())
	}
}

// TestFastPathUplinkDeleted deletes a link with a route just before ADD sends the message that
// names this link as a device of the flowtable. The kernel refuses this message. The test checks
// that ADD succeeds without the link.
func TestFastPathUplinkDeleted(t *testing.T) {
	t.Parallel()
	newFastNode(t, fast).containers(1)
	setuptest.Run(t, "sh", "-ec", "ip link add other type dummy; ip addr add 198.51.100.1/24 dev other; ip link set other up")
	deleted := false
	added := on("ADD", 1, fast).traced(t, func(c ptrace.Call) bool {
		if deleted || !sends(c) {
			return true
		}
		message, err := c.Data(int(c.Args[2]))
		if err != nil {
			t.Error(err)
		}
		if bytes.Contains(message, []byte("fastpath\x00")) && bytes.Contains(message, []byte("other\x00")) {
			setuptest.Run(t, "ip", "link", "delete", "other")
			deleted = true
		}
		return true
	}).ok(t)
	if !deleted {
		t.Error("ADD names the link in no message")
	}
	on("CHECK", 1, fast.with(object{"prevResult": json.RawMessage(added.stdout)})).run(t).ok(t)
}

// TestFastPathBandwidth checks that packets on the fast path pass the queues that limit a
// container's bandwidth. With a limit for packets from the container, kernels that need ports in the flowtable keep
// these packets on the slow path.
func TestFastPathBandwidth(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		limits object
		links  []string
	}{
		"to the container": {object{"ingressRate": limits["ingressRate"], "ingressBurst": limits["ingressBurst"]}, []string{portOf}},
		"both directions":  {limits, []string{portOf, ifbOf1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newFastNode(t, fast)
			outside := n.outside(false)
			c := n.containers(1)[0]
			forwarded := countForwarded(t)
			echo(t, outside)
			on("ADD", 1, limited(fast, tt.limits)).run(t).ok(t)
			partly := len(tt.links) == 2 && strings.Contains(setuptest.Run(t, "nft", "list", "flowtables"), portOf)
			conn := dial(t, c, "tcp", "192.0.2.2:7000")
			if isFast(t, conn, forwarded) == partly {
				t.Errorf("on the fast path: %v: the test proves nothing", !partly)
			}
			queued := func(link string) int {
				t.Helper()
				out := setuptest.Run(t, "tc", "-s", "qdisc", "show", "dev", link, "root")
				found := regexp.MustCompile(`Sent \d+ bytes (\d+) pkt`).FindStringSubmatch(out)
				if found == nil {
					t.Fatalf("no queue on %s: %s", link, out)
				}
				count, _ := strconv.Atoi(found[1])
				return count
			}
			for _, link := range tt.links {
				before := queued(link)
				if exchange(conn, 20, 100); queued(link) < before+20 {
					t.Errorf("%d packets on the fast path, but only %d more in the queue of %s", 20, queued(link)-before, link)
				}
			}
			if !partly && forwarded() != 0 {
				t.Error("the connection has left the fast path: the test proves nothing")
			}
		})
	}
}
