package cnitool

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/attack"
)

// TestLocalnetGuard sends packets from a container and from the LAN to a server on the host's
// loopback. Host ports switch route_localnet on, so the kernel alone would accept these packets.
// The test checks that bridgeveth drops them, also after a flush of all rules. Without the tc
// filter on the bridge, they must arrive.
func TestLocalnetGuard(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	outside := n.outside(false)
	c := n.containers(1)
	setuptest.Run(t, "ip", "link", "add", "br0", "type", "bridge") // a bridge that ADD has not made, so DEL keeps it
	setuptest.Run(t, "ip", "link", "set", "br0", "up")
	before := setuptest.Run(t, "tc", "qdisc", "show", "dev", "br0")
	serve(t, n.Namespace, 9999)
	conf := publishing(single, object{"hostPort": 8080, "containerPort": 80})
	on("ADD", 1, conf).run(t).ok(t)
	attack.IntoLoopback(t, c[0], "10.88.0.1")
	attack.IntoLoopback(t, outside, "192.0.2.1")
	closed := func(when string) {
		t.Helper()
		for name, from := range map[string]*setup.Namespace{"a container": c[0], "the LAN": outside} {
			if got := ask(t, from, "tcp", "127.0.0.7", 9999); got != "" {
				t.Errorf("%s: the host's loopback answered %s, in %s", when, got, name)
			}
		}
	}
	closed("after ADD")
	setuptest.Run(t, "nft", "flush", "ruleset")
	closed("after nft flush ruleset")
	for tags := range 4 {
		if reaches(t, c[0], n.Namespace, tags) {
			t.Errorf("a frame with %d VLAN tags arrives", tags)
		}
	}
	setuptest.Run(t, "tc", "filter", "del", "dev", "br0", "ingress")
	if got := ask(t, c[0], "tcp", "127.0.0.7", 9999); got == "" {
		t.Error("without the guard the server does not answer either: the test proves nothing")
	}
	for tags := range 4 {
		if !reaches(t, c[0], n.Namespace, tags) {
			t.Errorf("without the guard a frame with %d VLAN tags does not arrive either: the test proves nothing", tags)
		}
	}
	on("DEL", 1, conf).run(t).ok(t)
	on("ADD", 1, conf).run(t).ok(t)
	setuptest.Run(t, "nft", "flush", "ruleset")
	on("DEL", 1, conf).run(t).ok(t)
	if got := setuptest.Sysctl(t, "ipv4/conf/br0/route_localnet"); got != "0" {
		t.Errorf("route_localnet stays %s", got)
	}
	if got := setuptest.Run(t, "tc", "qdisc", "show", "dev", "br0"); got != before {
		t.Errorf("DEL left %s, there was %s", got, before)
	}
}

// reaches reports whether a UDP packet from a container to 127.0.0.7 arrives at the host. The
// packet has the given number of VLAN tags with VLAN 0. The kernel removes such tags on every
// bridge.
func reaches(t testing.TB, from, host *setup.Namespace, tags int) (arrives bool) {
	t.Helper()
	var server net.PacketConn
	var gateway net.HardwareAddr
	err := host.Do(func() (err error) {
		br, err := net.InterfaceByName("br0")
		if err == nil {
			gateway = br.HardwareAddr
			server, err = net.ListenPacket("udp4", "127.0.0.7:0")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	frame := append(append([]byte{}, gateway...), 0x0a, 0x58, 10, 88, 0, 2)
	for range tags {
		frame = append(frame, 0x81, 0, 0, 0)
	}
	header := []byte{0x45, 0, 0, 32, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0, 10, 88, 0, 2, 127, 0, 0, 7}
	binary.BigEndian.PutUint16(header[10:], attack.Checksum(header))
	frame = append(append(frame, 0x08, 0), header...)
	frame = binary.BigEndian.AppendUint16(append(frame, 0x30, 0x39), uint16(server.LocalAddr().(*net.UDPAddr).Port))
	frame = append(frame, 0, 12, 0, 0, 'h', 'e', 'r', 'e')
	sender := packetSocket(t, from)
	defer unix.Close(sender)
	if _, err := unix.Write(sender, frame); err != nil {
		t.Fatal(err)
	}
	_ = server.SetReadDeadline(time.Now().Add(time.Second)) // fails only on a closed socket
	_, _, err = server.ReadFrom(make([]byte, 100))
	return err == nil
}

// TestLocalnetAlone publishes ports on 127.0.0.7. It checks that the host gets an answer at this
// address, and that a machine on the LAN and containers on both bridges get none. The cases
// have br_netfilter on or off, and the sysctl route_localnet of all links on or off.
func TestLocalnetAlone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ everywhere, netfilter string }{{"0", "1"}, {"1", "1"}, {"0", "0"}} {
		t.Run(fmt.Sprintf("conf.all=%s, bridge-nf-call-iptables=%s", tt.everywhere, tt.netfilter), func(t *testing.T) {
			t.Parallel()
			n := newNode(t, single, "nft")
			outside := n.outside(false)
			c := n.containers(3)
			setuptest.SetSysctl(t, "ipv4/conf/all/route_localnet", tt.everywhere)
			setuptest.SetSysctl(t, "bridge/bridge-nf-call-iptables", tt.netfilter)
			conf := publishing(single, object{"hostPort": 8084, "containerPort": 80, "hostIP": "127.0.0.7"}, object{"hostPort": 8085, "containerPort": 80})
			other := single.with(object{"name": "other", "bridge": "br1", "ipam": object{"type": "ipam-simple", "subnet": "10.89.0.0/24"}})
			on("ADD", 1, conf).run(t).ok(t)
			on("ADD", 2, single).run(t).ok(t)
			on("ADD", 3, other).run(t).ok(t)
			serve(t, c[0], 80)
			attack.IntoLoopback(t, c[1], "10.88.0.1")
			attack.IntoLoopback(t, c[2], "10.89.0.1")
			attack.IntoLoopback(t, outside, "192.0.2.1")
			for _, port := range []int{8084, 8085} {
				if got := ask(t, n.Namespace, "tcp", "127.0.0.7", port); got != "10.88.0.1" {
					t.Errorf("the host at port %d: got %q, want an answer to 10.88.0.1", port, got)
				}
				for name, from := range map[string]*setup.Namespace{"the LAN": outside, "a sibling": c[1], "another bridge": c[2]} {
					if got := ask(t, from, "tcp", "127.0.0.7", port); got != "" {
						t.Errorf("port %d answers %s, in %s", port, got, name)
					}
				}
			}
		})
	}
}

// TestLocalnetBeside checks a bridge on which somebody else has tc filters. ADD adds the guard of
// the host's loopback there, and DEL must remove only this guard.
func TestLocalnetBeside(t *testing.T) {
	t.Parallel()
	for _, qdisc := range []string{"clsact", "ingress"} {
		t.Run(qdisc, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, single, "nft")
			n.containers(1)
			setuptest.Run(t, "ip", "link", "add", "br0", "type", "bridge")
			setuptest.Run(t, "tc", "qdisc", "add", "dev", "br0", qdisc)
			setuptest.Run(t, "tc", "filter", "add", "dev", "br0", "ingress", "pref", "9", "bpf", "da", "bytecode", "1,6 0 0 4294967295")
			filters := func() string { return setuptest.Run(t, "tc", "filter", "show", "dev", "br0", "ingress") }
			before := filters()
			conf := publishing(single, object{"hostPort": 8080, "containerPort": 80})
			added := on("ADD", 1, conf).run(t).ok(t)
			on("CHECK", 1, conf.with(object{"prevResult": json.RawMessage(added.stdout)})).run(t).ok(t)
			if !strings.Contains(filters(), "pref 25206 bpf") {
				t.Errorf("there is no guard:\n%s", filters())
			}
			on("DEL", 1, conf).run(t).ok(t)
			if got := filters(); got != before {
				t.Errorf("DEL left\n%s, there was\n%s", got, before)
			}
		})
	}
}

// olderHostPorts is a shell script that replaces the host port rules of br0 by those of older
// builds. The older rules masquerade each redirected packet that stays in the subnet. Older builds
// guard the host's loopback by an nftables rule, not by a tc filter.
const olderHostPorts = `
tc qdisc del dev br0 clsact
nft -f - <<'END'
flush chain ip bridgeveth hostports
flush chain ip bridgeveth prerouting
flush chain ip bridgeveth locally
flush chain ip bridgeveth postrouting
delete chain ip bridgeveth answers
table ip bridgeveth {
	chain postrouting {
		ct status dnat ip saddr 10.88.0.0/24 ip daddr 10.88.0.0/24 counter masquerade comment "br0 10.88.0.0/24 hostports"
		ct status dnat ip saddr 127.0.0.0/8 oifname "br0" counter masquerade comment "br0 10.88.0.0/24 loopback"
	}
	chain hostports {
		counter dnat ip to ip daddr . meta l4proto . th dport map @ports_of_address comment "one address"
		counter dnat ip to meta l4proto . th dport map @ports comment "any address"
	}
	chain prerouting { fib daddr type local jump hostports comment "host ports"; }
	chain locally { fib daddr type local jump hostports comment "host ports"; }
	chain arriving {
		type filter hook prerouting priority raw
		iifname "br0" ip daddr 127.0.0.0/8 counter drop comment "br0 10.88.0.0/24 br0 loopback"
	}
}
END`

// TestHostPortUpgrade checks that the next ADD with a host port, or `bvctl repair`, replaces the
// host port rules of an older build.
func TestHostPortUpgrade(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"ADD", "repair"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			conf := publishing(single.with(object{"ipMasq": false, "capabilities": object{"portMappings": true}}), object{"hostPort": 8080, "containerPort": 80})
			n := newNode(t, conf, "nft")
			n.env = []string{`CAP_ARGS={"portMappings": [{"hostPort": 8080, "containerPort": 80}]}`}
			c := n.containers(2)
			n.must("add", c[0])
			counts := regexp.MustCompile(`packets \d+ bytes \d+ `)
			state := func() []string {
				rules := regexp.MustCompile(`(?m)^.*comment "[^/]*"$`).FindAllString(setuptest.Run(t, "nft", "list", "table", "ip", "bridgeveth"), -1)
				for i := range rules {
					rules[i] = counts.ReplaceAllString(rules[i], "")
				}
				slices.Sort(rules) // the order of the rules depends on when they were made
				return append(rules, setuptest.Run(t, "tc", "filter", "show", "dev", "br0", "ingress"))
			}
			want := state()
			setuptest.Run(t, "sh", "-ec", olderHostPorts)
			if by == "ADD" {
				on("ADD", 2, publishing(conf, object{"hostPort": 9090, "containerPort": 80})).run(t).ok(t)
			} else {
				setuptest.Run(t, filepath.Join(programs, "bvctl"), "repair")
			}
			if diff := cmp.Diff(want, state()); diff != "" {
				t.Errorf("rules differ from those of a new network (-new +replaced):\n%s", diff)
			}
		})
	}
}
