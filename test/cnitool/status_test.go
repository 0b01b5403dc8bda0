package cnitool

import (
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// These are shell commands. They add a rule that accepts packets by their mark, chains that drop
// the packets of one IP family, and a bridge with an address.
const (
	acceptMark = unknown + "nft add rule inet filter forward meta mark and 0x100000 != 0 accept\n"
	deny4      = "nft add table ip mine; nft add chain ip mine fw '{ type filter hook forward priority 5; policy drop; }'\n"
	deny6      = "nft add table ip6 mine; nft add chain ip6 mine fw '{ type filter hook forward priority 5; policy drop; }'\n"
	ownAddress = "ip link add br0 type bridge; ip addr add 10.99.0.1/24 dev br0; ip link set br0 up\n"
)

const readOnly = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys\n"

var allPrograms = []string{"iptables", "iptables-nft", "iptables-legacy", "ip6tables", "ip6tables-nft", "ip6tables-legacy"}

// TestStatusLikeADD checks that STATUS succeeds exactly if the next ADD succeeds and the
// container's packets leave the host. If STATUS failed without such a reason, a runtime that waits
// for STATUS would never call ADD.
func TestStatusLikeADD(t *testing.T) {
	t.Parallel()
	only6 := ipamKeys(object{"subnet": "fd88::/64"})
	foreign := single.with(object{"ipam": object{"type": "host-local", "dataDir": "/run/host-local", "subnet": "fd88::/64"}})
	chain := object{"forwardChains": []string{"inet filter forward"}}
	type codes struct{ nothing, one, gone uint } // error codes of STATUS before the first ADD, with one container, and after its DEL; 0 for success
	for _, tt := range []struct {
		name  string
		rules string
		hide  []string
		conf  object
		first object // another network, to which a container is attached before
		want  codes
		inner bool // packets of the container do not leave the host
	}{
		{name: "no firewall", conf: dual},
		{name: "iptables-nft denies", rules: "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP", conf: dual},
		{name: "iptables-legacy denies", rules: "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP", conf: dual},
		{name: "a chain denies", rules: unknown, conf: dual, want: codes{51, 51, 51}},
		{name: "a chain denies, forwardChains", rules: unknown, conf: dual.with(chain)},
		{name: "a chain denies, forwardMark without a rule", rules: unknown, conf: dual.with(object{"forwardMark": "0x100000"}), want: codes{51, 51, 51}},
		{name: "a chain denies, forwardMark", rules: acceptMark, conf: dual.with(object{"forwardMark": "0x100000"})},
		{name: "another chain denies, forwardChains", rules: unknown + deny4, conf: dual.with(chain), want: codes{51, 51, 51}},
		{name: "both chains deny, forwardChains", rules: unknown + deny4, conf: single.with(object{"forwardChains": []string{"inet filter forward", "ip mine fw"}})},
		{name: "the chain is not there, forwardChains", conf: dual.with(chain), want: codes{50, 50, 50}},
		{name: "a chain denies, forward none", rules: unknown, conf: dual.with(object{"forward": "none"}), inner: true},
		{name: "a chain denies, layer 2", rules: unknown, conf: object{"type": "bridgeveth", "bridge": "br0"}, inner: true},
		{name: "IPv4 denied, IPv6 network", rules: deny4, conf: only6},
		{name: "IPv6 denied, IPv6 network", rules: deny6, conf: only6, want: codes{51, 51, 51}},
		{name: "IPv6 denied, forwardChains", rules: deny6, conf: only6.with(object{"forwardChains": []string{"ip6 mine fw"}})},
		{name: "IPv4 denied, IPv6 network of another IPAM plugin", rules: deny4, conf: foreign},
		{name: "no iptables, IPv6 network", rules: "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP", hide: []string{"iptables", "iptables-nft", "iptables-legacy"}, conf: only6},
		{name: "another address on the bridge", rules: ownAddress, conf: single, want: codes{50, 50, 50}},
		{name: "another address on the bridge, gatewayConflict", rules: ownAddress, conf: single.with(object{"gatewayConflict": "add"})},
		{name: "the bridge is a veth", rules: "ip link add br0 type veth peer name br1", conf: single, want: codes{50, 50, 50}},
		{name: "a bridge that does not filter by VLAN", rules: "ip link add br0 type bridge", conf: single.with(object{"vlan": 7}), want: codes{50, 50, 50}},
		{name: "a rule that denies ahead of Docker's chains", rules: "iptables -N DOCKER-USER; iptables -A FORWARD -j DROP; iptables -A FORWARD -j DOCKER-USER", conf: single, want: codes{51, 51, 51}},
		{name: "no iptables, nothing denies", hide: allPrograms, conf: dual},
		{name: "no iptables, iptables-nft denies", rules: "iptables -P FORWARD DROP", hide: allPrograms, conf: single},
		{name: "no iptables, iptables-legacy denies", rules: "iptables-legacy -P FORWARD DROP", hide: allPrograms, conf: single, want: codes{50, 50, 50}},
		{name: "sysctls are read-only", rules: readOnly, conf: single, want: codes{50, 50, 50}},
		{name: "sysctls are read-only, forwarding is on", rules: "sysctl -qw net.ipv4.ip_forward=1; " + readOnly, conf: single},
		{name: "the store is read-only", rules: "mkdir /run/ro; mount -t tmpfs -o ro none /run/ro", conf: ipamKeys(object{"subnet": "10.88.0.0/24", "dataDir": "/run/ro/leases"}), want: codes{5, 5, 5}},
		{name: "another network has the range", conf: single.with(object{"name": "second"}), first: single, want: codes{7, 7, 7}},
		{name: "one address", conf: ipamKeys(object{"subnet": "10.88.0.0/30"}), want: codes{0, 100, 0}},
		{name: "no address for the gateway", conf: ipamKeys(object{"subnet": "10.88.0.0/32"}), want: codes{7, 7, 7}},
		{name: "too small an MTU", conf: only6.with(object{"mtu": 1279}), want: codes{7, 7, 7}},
		{name: "layer 2 with a gateway", conf: object{"type": "bridgeveth", "bridge": "br0", "isGateway": true}, want: codes{7, 7, 7}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, tt.conf)
			n.outside(false)
			setuptest.Run(t, "sh", "-ec", tt.rules)
			setuptest.Hide(t, tt.hide...)
			c := n.containers(3)
			if tt.first != nil {
				setuptest.Inhabit(t, c[2])
				on("ADD", 3, tt.first).run(t).ok(t)
			}
			probe := func(state string, want uint) {
				t.Helper()
				before := ""
				if tt.hide == nil { // Dump needs the programs
					before = setuptest.Dump(t)
				}
				a := on("STATUS", 0, tt.conf).run(t)
				if tt.hide == nil {
					setuptest.Same(t, before, state+": STATUS changed something")
				}
				var code uint
				if a.err != nil {
					code = a.failed(t).Code
				}
				if code != want {
					t.Errorf("%s: STATUS has code %d, want %d: %s", state, code, want, a.stdout)
				}
				added := on("ADD", 2, tt.conf).run(t)
				works := added.err == nil && (tt.inner || reachesOut(t, c[1]))
				if works != (want == 0) {
					t.Errorf("%s: STATUS has code %d, and ADD: %s", state, code, added.stdout)
				}
				on("DEL", 2, tt.conf).run(t).ok(t)
			}
			probe("nothing attached", tt.want.nothing)
			setuptest.Inhabit(t, c[0])
			on("ADD", 1, tt.conf).run(t)
			probe("one attached", tt.want.one)
			on("DEL", 1, tt.conf).run(t).ok(t)
			probe("all gone", tt.want.gone)
		})
	}
}

// reachesOut reports whether a container gets an answer from beyond the host. It uses IPv4 if the
// container has an IPv4 default route, and otherwise IPv6.
func reachesOut(t testing.TB, c *setup.Namespace) bool {
	t.Helper()
	if strings.Contains(setuptest.In(t, c, "ip", "-4", "route"), "default") {
		return setuptest.Ping(t, c, "192.0.2.2")
	}
	return setuptest.Ping(t, c, "2001:db8::2")
}
