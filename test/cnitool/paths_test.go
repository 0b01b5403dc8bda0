package cnitool

import (
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestMasqueradePaths checks the source address that servers see in packets from a container. With
// ipMasq, servers outside of the host, and containers on another bridge, must see an address of the
// host. All other servers must see the container's own address. TestHostPortPaths checks the paths
// through host ports.
func TestMasqueradePaths(t *testing.T) {
	t.Parallel()
	for _, masquerade := range []bool{true, false} {
		t.Run(fmt.Sprint(masquerade), func(t *testing.T) {
			t.Parallel()
			conf := dual.with(object{"ipMasq": masquerade, "isDefaultGateway": true})
			n := newNode(t, conf, "nft", "legacy")
			outside := n.outside(true)
			c := n.containers(3)
			other := conf.with(object{"name": "other", "bridge": "br1", "ipam": object{"type": "ipam-simple", "ranges": [][]object{
				{{"subnet": "10.89.0.0/24"}}, {{"subnet": "fd89::/64"}},
			}}})
			on("ADD", 1, conf).run(t).ok(t)
			on("ADD", 2, conf).run(t).ok(t)
			on("ADD", 3, other).run(t).ok(t)
			for _, server := range append(c, outside, n.Namespace) {
				serve(t, server, 80)
			}
			const byAnother = "the host by another address"
			from := func(with, without string) string {
				if masquerade {
					return with
				}
				return without
			}
			for _, p := range []struct {
				name     string
				from     *setup.Namespace
				to, want string
			}{
				{"outside", c[0], "192.0.2.2", from("192.0.2.1", "10.88.0.2")}, {"outside", c[0], "2001:db8::2", from("2001:db8::1", "fd88::2")},
				{"another network", c[0], "10.89.0.2", from("10.89.0.1", "10.88.0.2")}, {"another network", c[0], "fd89::2", from("fd89::1", "fd88::2")},
				{"sibling", c[0], "10.88.0.3", "10.88.0.2"}, {"sibling", c[0], "fd88::3", "fd88::2"},
				{"gateway", c[0], "10.88.0.1", "10.88.0.2"}, {"gateway", c[0], "fd88::1", "fd88::2"},
				{byAnother, c[0], "192.0.2.1", "10.88.0.2"}, {byAnother, c[0], "2001:db8::1", "fd88::2"},
				{"from the host", n.Namespace, "10.88.0.2", "10.88.0.1"}, {"from the host", n.Namespace, "fd88::2", "fd88::1"},
				{"from outside", outside, "10.88.0.2", "192.0.2.2"}, {"from outside", outside, "fd88::2", "2001:db8::2"},
			} {
				for _, network := range []string{"tcp", "udp"} {
					if network == "udp" && p.name == byAnother {
						continue // a server that listens on all addresses sends its answer from the address nearest to the client
					}
					if got := ask(t, p.from, network, p.to, 80); got != p.want {
						t.Errorf("%s %s, %s: got %q, want %q", network, p.name, p.to, got, p.want)
					}
				}
			}
			for i, conf := range []object{conf, conf, other} {
				on("DEL", i+1, conf).run(t).ok(t)
			}
		})
	}
}

// TestOwnRules checks two properties of bridgeveth's rules: only the rule for answers to the host's
// loopback uses a mark, and no multicast packet is masqueraded.
func TestOwnRules(t *testing.T) {
	t.Parallel()
	newNode(t, everything, "nft").containers(1)
	on("ADD", 1, everything).run(t).ok(t)
	for family, multicast := range map[string]string{"ip": "ip daddr != 224.0.0.0/4", "ip6": "ip6 daddr != ff00::/8"} {
		rules := setuptest.Run(t, "nft", "list", "table", family, "bridgeveth")
		marked := regexp.MustCompile(`(?m)^.*mark.*$`).FindAllString(rules, -1)
		if marked = slices.DeleteFunc(marked, func(rule string) bool { return strings.Contains(rule, `"answers to loopback"`) }); len(marked) > 0 {
			t.Errorf("a mark is used: %q", marked)
		}
		masquerade := regexp.MustCompile(`(?m)^.* masquerade comment ".* masquerade"$`).FindAllString(rules, -1)
		if len(masquerade) != 1 || !strings.Contains(masquerade[0], multicast) {
			t.Errorf("%q is not in the rules of masquerade: %q", multicast, masquerade)
		}
	}
}

// TestAddressesAtOnce checks that a program can bind to IPv6 addresses right after ADD. By default,
// a program cannot use a new address for some seconds, because the kernel first runs duplicate
// address detection.
func TestAddressesAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t, dual, "nft")
	c := n.containers(1)
	bind := func(ns *setup.Namespace, address string) error {
		return ns.Do(func() error {
			l, err := net.Listen("tcp", net.JoinHostPort(address, "80"))
			if err == nil {
				l.Close()
			}
			return err
		})
	}
	n.must("add", c...)
	for _, at := range []struct {
		ns      *setup.Namespace
		address string
	}{{n.Namespace, "fd88::1"}, {c[0], "fd88::2"}} {
		if err := bind(at.ns, at.address); err != nil {
			t.Error(err)
		}
	}
	setuptest.Run(t, "ip", "addr", "add", "fd99::1/64", "dev", "br0")
	if bind(n.Namespace, "fd99::1") == nil {
		t.Error("duplicate address detection takes no time: the test proves nothing")
	}
}

// TestWithoutIPv6 checks ADD, CHECK and DEL on a host whose kernel has no IPv6.
func TestWithoutIPv6(t *testing.T) {
	t.Parallel()
	n := newNode(t, single)
	setuptest.Run(t, "mount", "-t", "tmpfs", "none", "/proc/sys/net/ipv6")
	setuptest.Hide(t, "ip6tables", "ip6tables-nft", "ip6tables-legacy")
	setuptest.DropForward(t, "iptables-nft")
	c := n.containers(2)
	before := setuptest.Dump(t)
	n.must("add", c...)
	n.must("check", c...)
	if !setuptest.Ping(t, c[0], "10.88.0.3") {
		t.Error("no answer from the sibling")
	}
	n.must("del", c...)
	setuptest.Same(t, before, "DEL left traces")
}

// TestReferenceKeys checks configuration keys of the reference plugin bridge. Each case sets one
// key and checks the output of ip or nft.
func TestReferenceKeys(t *testing.T) {
	t.Parallel()
	const host, container = "ip -o -d addr; ip -o -d link; ip route; nft list ruleset", "ip -o addr; ip -o -d link; ip route; ip -6 route"
	routes := func(list ...object) object {
		return dual.with(object{"ipam": dual["ipam"].(object).with(object{"routes": list})})
	}
	for _, tt := range []struct {
		name   string
		conf   object
		args   string // CNI_ARGS
		where  string
		want   []string
		absent []string
	}{
		{name: "bridge", conf: object{"type": "bridgeveth"}, where: host, want: []string{"master cni0"}},
		{name: "isGateway", conf: dual.with(object{"isDefaultGateway": false, "isGateway": true}), where: host, want: []string{"10.88.0.1/24", "fd88::1/64"}},
		{name: "isGateway without a default route", conf: dual.with(object{"isDefaultGateway": false, "isGateway": true}), where: container, want: []string{"10.88.0.2/24"}, absent: []string{"default via"}},
		{name: "no gateway", conf: dual.with(object{"isDefaultGateway": false}), where: host, want: []string{"master br0"}, absent: []string{"10.88.0.1", "fd88::1"}},
		{name: "isDefaultGateway", conf: dual, where: container, want: []string{"default via 10.88.0.1 dev eth0", "default via fd88::1 dev eth0"}},
		{name: "isDefaultGateway, with a default route of the IPAM plugin's", conf: routes(object{"dst": "0.0.0.0/0"}, object{"dst": "::/0"}),
			where: container, want: []string{"default via 10.88.0.1 dev eth0", "default via fd88::1 dev eth0"}},
		{name: "isDefaultGateway, with another gateway of the IPAM plugin's", conf: routes(object{"dst": "0.0.0.0/0", "gw": "10.88.0.9"}),
			where: container, want: []string{"default via 10.88.0.9 dev eth0", "default via fd88::1 dev eth0"}, absent: []string{"via 10.88.0.1"}},
		{name: "isDefaultGateway, with a default route in another table", conf: routes(object{"dst": "0.0.0.0/0", "table": 100}, object{"dst": "::/0", "table": 254}),
			where: "ip route; ip route show table 100 | sed s/default/moved/; ip -6 route", want: []string{"default via 10.88.0.1 dev eth0", "moved via 10.88.0.1 dev eth0", "default via fd88::1 dev eth0"}},
		{name: "the same route twice", conf: routes(object{"dst": "198.51.100.0/24"}, object{"dst": "203.0.113.0/24"}),
			where: container, want: []string{"198.51.100.0/24 via 10.88.0.1", "203.0.113.0/24 via 10.88.0.1"}},
		{name: "ipMasq off", conf: dual.with(object{"ipMasq": false}), where: host, want: []string{"master br0"}, absent: []string{"masquerade"}},
		{name: "ipMasqBackend iptables", conf: dual.with(object{"ipMasqBackend": "iptables"}), where: host, want: []string{"masquerade"}},
		{name: "ipMasqBackend nftables", conf: dual.with(object{"ipMasqBackend": "nftables"}), where: host, want: []string{"masquerade"}},
		{name: "mtu of a bridge that is made, and of the port", conf: dual.with(object{"mtu": 1400}), where: host + "| grep -c 'mtu 1400'", want: []string{"2"}},
		{name: "mtu inside", conf: dual.with(object{"mtu": 1400}), where: container, want: []string{"mtu 1400"}},
		{name: "mtu too small for IPv6", conf: single.with(object{"mtu": 1000}), where: host + "| grep -c 'mtu 1000'", want: []string{"2"}},
		{name: "hairpinMode", conf: dual.with(object{"hairpinMode": true}), where: host, want: []string{"hairpin on"}},
		{name: "no hairpinMode", conf: dual, where: host, want: []string{"hairpin off"}},
		{name: "arguments of others", conf: dual, args: "K8S_POD_NAME=a;K8S_POD_NAMESPACE=b;NERDCTL_CNI_DHCP_HOSTNAME=c;MAC=02:00:00:00:00:05;IP=10.88.0.99", where: container,
			want: []string{"02:00:00:00:00:05", "10.88.0.99/24"}},
		{name: "no IPAM plugin", conf: object{"type": "bridgeveth", "ipam": object{}}, where: container, want: []string{"eth0"}, absent: []string{"10.88"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, tt.conf, "nft")
			c := n.containers(1)
			before := setuptest.Dump(t)
			add := on("ADD", 1, tt.conf)
			add.args = tt.args
			a := add.run(t).ok(t)
			check := on("CHECK", 1, tt.conf.with(object{"prevResult": json.RawMessage(a.stdout)}))
			check.args = tt.args
			check.run(t).ok(t)
			var got string
			if strings.HasPrefix(tt.where, host) {
				got = setuptest.Run(t, "sh", "-c", "{ "+strings.Replace(tt.where, host, host+"; }", 1))
			} else {
				got = setuptest.In(t, c[0], "sh", "-c", tt.where)
			}
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q is not in\n%s", want, got)
				}
			}
			for _, absent := range tt.absent {
				if strings.Contains(got, absent) {
					t.Errorf("%q is in\n%s", absent, got)
				}
			}
			on("DEL", 1, tt.conf).run(t).ok(t)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}
