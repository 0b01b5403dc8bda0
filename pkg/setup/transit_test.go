package setup_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// podRanges are the pod ranges of a cluster. They contain 10.244.2.2 and fd00:10:244:2::2, the
// addresses of a pod on another node.
var podRanges = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/56")}

// node is a host with rules as kube-proxy adds them in mode nftables. The rules redirect packets
// for 198.51.100.9 and fd00:2::9 to a pod on another node. Such packets come in and leave by the
// same link. kube-proxy adds no rule to FORWARD in this mode.
type node struct {
	*setup.Host
	outside *setup.Namespace // a namespace that is both the client and the other node
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{Host: setuptest.EnterHost(t), outside: setuptest.Container(t, "outside")}
	setuptest.Run(t, "sh", "-ec", `ip link add uplink type veth peer name eth0 netns outside
		ip addr add 192.0.2.1/24 dev uplink; ip addr add fd00:1::1/64 dev uplink nodad; ip link set uplink up
		ip -n outside addr add 192.0.2.2/24 dev eth0; ip -n outside addr add fd00:1::2/64 dev eth0 nodad; ip -n outside link set eth0 up; ip -n outside link set lo up
		ip -n outside addr add 10.244.2.2 dev lo; ip -n outside addr add fd00:10:244:2::2 dev lo nodad
		ip route add 10.244.2.0/24 via 192.0.2.2; ip route add fd00:10:244:2::/64 via fd00:1::2
		ip -n outside route add 198.51.100.9 via 192.0.2.1; ip -n outside route add fd00:2::9 via fd00:1::1`)
	setuptest.SetSysctl(t, "ipv4/ip_forward", "1")
	setuptest.SetSysctl(t, "ipv6/conf/all/forwarding", "1")
	n.proxy(t)
	return n
}

// proxy adds the nftables rules that kube-proxy would add.
func (n *node) proxy(t *testing.T) {
	t.Helper()
	setuptest.Run(t, "nft", `table inet kube {
		chain there { type nat hook prerouting priority dstnat; ip daddr 198.51.100.9 dnat to 10.244.2.2; ip6 daddr fd00:2::9 dnat to fd00:10:244:2::2; }
		chain back { type nat hook postrouting priority srcnat; ip daddr 10.244.2.2 masquerade; ip6 daddr fd00:10:244:2::2 masquerade; }
	}`)
}

// passes reports whether packets to the pod on the other node pass, by IPv4 and IPv6. If they pass
// in only one of these families, the test fails.
func (n *node) passes(t *testing.T) bool {
	t.Helper()
	ip4, ip6 := setuptest.Ping(t, n.outside, "198.51.100.9"), setuptest.Ping(t, n.outside, "fd00:2::9")
	if ip4 != ip6 {
		t.Errorf("IPv4 passes: %v, IPv6 passes: %v", ip4, ip6)
	}
	return ip4
}

func (n *node) ensure(t *testing.T, ranges ...netip.Prefix) (restored []string) {
	t.Helper()
	restored, err := n.EnsureTransit(ranges)
	if err != nil {
		t.Fatal(err)
	}
	return restored
}

// inBoth runs shell commands twice: with iptables and with ip6tables as $I.
func inBoth(t *testing.T, commands string) {
	t.Helper()
	setuptest.Run(t, "sh", "-ec", "for I in iptables ip6tables; do "+commands+"; done")
}

// TestTransit checks that FORWARD chains of several kinds drop packets to a pod on another node,
// and that EnsureTransit makes the chains accept them. A DROP rule in the administrator's chain
// must still take effect. DeleteTransit must restore the former state.
func TestTransit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, forward, admin string }{
		{"policy DROP", "$I -P FORWARD DROP", "BRIDGEVETH-ADMIN"},
		{"trailing REJECT", "$I -A FORWARD -j REJECT", "BRIDGEVETH-ADMIN"},
		{"Docker 27", "$I -P FORWARD DROP; $I -N DOCKER-USER; $I -N DOCKER-ISOLATION-STAGE-1; $I -A FORWARD -j DOCKER-USER; $I -A FORWARD -j DOCKER-ISOLATION-STAGE-1", "DOCKER-USER"},
		{"reference plugin firewall", "$I -P FORWARD DROP; $I -N CNI-FORWARD; $I -N CNI-ADMIN; $I -A FORWARD -j CNI-FORWARD; $I -A CNI-FORWARD -j CNI-ADMIN", "CNI-ADMIN"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			if !n.passes(t) {
				t.Fatal("packets do not pass although nothing denies them")
			}
			inBoth(t, tt.forward)
			if n.passes(t) {
				t.Fatal("packets pass without our rules: the test proves nothing")
			}
			before := setuptest.Dump(t)
			n.ensure(t, podRanges...)
			if !n.passes(t) {
				t.Error("packets are dropped")
			}
			if restored := n.ensure(t, podRanges...); len(restored) > 0 {
				t.Errorf("the second call has restored %q", restored)
			}
			inBoth(t, "$I -A "+tt.admin+" -i uplink -j DROP")
			if n.passes(t) {
				t.Error("the administrator's DROP is bypassed")
			}
			inBoth(t, "$I -F "+tt.admin)
			if err := n.DeleteTransit(); err != nil {
				t.Error(err)
			}
			setuptest.Same(t, before, "DeleteTransit has left something")
		})
	}
}

// TestTransitHeals checks that EnsureTransit restores the rules after another program has deleted
// them or added a rule that denies all packets.
func TestTransitHeals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, wipe string }{
		{"flushed FORWARD", "$I -F FORWARD"},
		{"flushed table", "$I -F"},
		{"flushed transit chain", "$I -F BRIDGEVETH-TRANSIT"},
		{"half of the rules", "$I -D BRIDGEVETH-TRANSIT 1"},
		{"REJECT at the top", "$I -I FORWARD -j REJECT"},
		{"DROP at the top of our chain", "$I -I BRIDGEVETH-FORWARD -j DROP"},
		{"DROP in the transit chain", "$I -I BRIDGEVETH-TRANSIT -j DROP"},
		{"flushed ruleset", "nft flush ruleset; iptables -P FORWARD DROP; ip6tables -P FORWARD DROP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			dropAll(t, "nft")
			n.ensure(t, podRanges...)
			inBoth(t, tt.wipe)
			if strings.Contains(tt.wipe, "flush ruleset") {
				n.proxy(t)
			}
			if n.passes(t) {
				t.Fatal("packets pass although the rules are gone")
			}
			if restored := n.ensure(t, podRanges...); len(restored) != 2 {
				t.Errorf("restored %q", restored)
			}
			if !n.passes(t) {
				t.Error("packets are dropped")
			}
		})
	}
}

// TestTransitSaved saves the ruleset with nft(8) and loads it again. One of our rules then has a
// form that iptables refuses. EnsureTransit must repair this rule, so that iptables works again.
func TestTransitSaved(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	dropAll(t, "nft")
	n.ensure(t, podRanges...)
	setuptest.Run(t, "sh", "-ec", "nft list ruleset >/run/saved; nft flush ruleset; nft -f /run/saved")
	n.ensure(t, podRanges...)
	inBoth(t, "$I -S BRIDGEVETH-TRANSIT")
	if !n.passes(t) {
		t.Error("packets are dropped")
	}
	if restored := n.ensure(t, podRanges...); len(restored) > 0 {
		t.Errorf("the second call has restored %q", restored)
	}
}

// TestTransitRules checks that docs/forward.md shows the transit rules, and that the rules for new
// ranges replace the rules for the old ranges. The rules for the replies of pods must not accept new
// connections from pods. Otherwise pods could reach the containers of Docker.
func TestTransitRules(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	dropAll(t, "nft")
	n.ensure(t, podRanges...)
	page, err := os.ReadFile("../../docs/forward.md")
	if err != nil {
		t.Fatal(err)
	}
	_, listed, _ := strings.Cut(string(page), "-N BRIDGEVETH-TRANSIT\n")
	listed, _, _ = strings.Cut(listed, "```")
	if got := setuptest.Run(t, "iptables", "-S", "BRIDGEVETH-TRANSIT"); got != "-N BRIDGEVETH-TRANSIT\n"+listed {
		t.Errorf("got\n%s\nand docs/forward.md has\n%s", got, listed)
	}
	n.ensure(t, netip.MustParsePrefix("10.244.2.2/32"), netip.MustParsePrefix("10.244.4.0/22"), podRanges[1])
	if got := rules(t, "iptables", "BRIDGEVETH-TRANSIT"); len(got) != 4 || !strings.HasPrefix(got[0], "-d 10.244.2.2/32 ") || !strings.HasPrefix(got[2], "-d 10.244.4.0/22 ") {
		t.Errorf("got %q", got)
	}
	if !n.passes(t) {
		t.Error("packets are dropped")
	}
	setuptest.Container(t, "docker")
	setuptest.Run(t, "sh", "-ec", `ip link add docker0 up type veth peer name eth0 netns docker; ip addr add 172.17.0.1/24 dev docker0
		ip -n docker addr add 172.17.0.2/24 dev eth0; ip -n docker link set eth0 up; ip -n docker route add default via 172.17.0.1
		ip -n outside route add 172.17.0.0/24 via 192.0.2.1 src 10.244.2.2`)
	if setuptest.Ping(t, n.outside, "172.17.0.2") {
		t.Error("a pod reaches a container of Docker")
	}
	setuptest.Run(t, "iptables", "-P", "FORWARD", "ACCEPT")
	if !setuptest.Ping(t, n.outside, "172.17.0.2") {
		t.Error("the ping is dropped elsewhere: the test proves nothing")
	}
}

// TestTransitFamily checks that EnsureTransit deletes the rules of a family without ranges, and only
// these rules.
func TestTransitFamily(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	dropAll(t, "nft")
	n.ensure(t, podRanges...)
	n.ensure(t, podRanges[0])
	if got := setuptest.Run(t, "ip6tables", "-S"); strings.Contains(got, "BRIDGEVETH") {
		t.Errorf("no IPv6 range is left, but got\n%s", got)
	}
	if !setuptest.Ping(t, n.outside, "198.51.100.9") {
		t.Error("packets to the IPv4 range are dropped")
	}
	if restored := n.ensure(t, podRanges[0]); len(restored) > 0 {
		t.Errorf("the second call has restored %q", restored)
	}
}

// TestTransitAndBridge checks that the rules of a bridge and the transit rules can be added and
// deleted in any order without changing each other.
func TestTransitAndBridge(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	dropAll(t, "nft")
	before := setuptest.Dump(t)
	bridge := func() {
		t.Helper()
		if err := n.EnsureForward("br0", unix.AF_INET, unix.AF_INET6); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string) {
		t.Helper()
		if !n.passes(t) {
			t.Errorf("%s: packets are dropped", when)
		}
		if ok, err := n.AcceptsForward("br0", unix.AF_INET); !ok || err != nil {
			t.Errorf("%s: the rules of the bridge are not in place: %v", when, err)
		}
		if restored := n.ensure(t, podRanges...); len(restored) > 0 {
			t.Errorf("%s: restored %q", when, restored)
		}
	}
	n.ensure(t, podRanges...)
	bridge()
	check("bridge after transit")
	if err := n.DeleteTransit(); err != nil {
		t.Fatal(err)
	}
	if n.passes(t) {
		t.Error("packets pass without the transit rules")
	}
	n.ensure(t, podRanges...)
	check("transit after bridge")
	if err := n.DeleteForward("br0"); err != nil {
		t.Fatal(err)
	}
	if !n.passes(t) {
		t.Error("packets are dropped without the bridge")
	}
	if err := n.DeleteTransit(); err != nil {
		t.Fatal(err)
	}
	setuptest.Same(t, before, "something is left")
}

// TestTransitLegacy checks that EnsureTransit returns an error if iptables-legacy denies packets for
// the pod ranges. The error contains commands. After the test has run them, EnsureTransit must
// succeed.
func TestTransitLegacy(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	dropAll(t, "legacy")
	if n.passes(t) {
		t.Fatal("packets pass: the test proves nothing")
	}
	_, err := n.EnsureTransit(podRanges)
	if err == nil {
		t.Fatal("no error")
	}
	for line := range strings.Lines(err.Error()) {
		_, commands, found := strings.Cut(line, `run "`)
		if !found {
			t.Fatalf("no commands: %s", line)
		}
		commands, _, _ = strings.Cut(commands, `"`)
		setuptest.Run(t, "sh", "-ec", commands)
	}
	n.ensure(t, podRanges...)
	if !n.passes(t) {
		t.Error("packets are dropped after the commands")
	}
}
