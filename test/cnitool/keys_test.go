package cnitool

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// TestMAC checks that ADD uses the MAC address that a runtime requests, in each place for such a
// request: runtimeConfig, args and CNI_ARGS.
func TestMAC(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := n.containers(1)
	const capability, args, env = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"
	both := object{"runtimeConfig": object{"mac": capability}, "args": object{"cni": object{"mac": args}}}
	for _, tt := range []struct {
		name string
		keys object
		env  string
		want string
	}{
		{"in all places", both, "MAC=" + env, capability},
		{"args", object{"args": both["args"]}, "MAC=" + env, args},
		{"environment", object{"runtimeConfig": object{"mac": ""}}, "IgnoreUnknown=1;MAC=" + env + ";IP=10.88.0.9", env},
		{"no request", object{}, "", "0a:58:0a:58:00:09"}, // computed from the address
	} {
		add := on("ADD", 1, single.with(tt.keys))
		add.args = tt.env
		if tt.name == "no request" {
			add.args = "IP=10.88.0.9"
		}
		a := add.run(t).ok(t)
		if link := setuptest.In(t, c[0], "ip", "-o", "link", "show", "eth0"); !strings.Contains(link, tt.want) || !strings.Contains(string(a.stdout), tt.want) {
			t.Errorf("%s: %s is neither in %s nor in %s", tt.name, tt.want, link, a.stdout)
		}
		check := on("CHECK", 1, single.with(tt.keys).with(object{"prevResult": json.RawMessage(a.stdout)}))
		check.args = add.args
		check.run(t).ok(t)
		on("DEL", 1, single).run(t).ok(t)
	}
	for _, tt := range []struct {
		keys object
		env  string
		code uint
		want string
	}{
		{object{"runtimeConfig": object{"mac": "02:00"}}, "", 7, `runtimeConfig.mac: "02:00" is no unicast MAC address`},
		{object{"args": object{"cni": object{"mac": "01:00:5e:00:00:01"}}}, "", 7, `args.cni.mac: "01:00:5e:00:00:01" is no unicast MAC address`},
		{object{}, "MAC=none", 7, `CNI_ARGS: MAC: "none" is no unicast MAC address`},
		{object{"args": object{"cni": object{"mac": 7}}}, "", 7, "args.cni.mac: a JSON number instead of a string"},
	} {
		add := on("ADD", 1, single.with(tt.keys))
		add.args = tt.env
		if f := add.run(t).failed(t); f.Code != tt.code || !strings.Contains(f.Msg, tt.want) {
			t.Errorf("got %+v, want code %d, %q", f, tt.code, tt.want)
		}
	}
}

// TestMasqExclude checks the source address that a server beyond the host sees. In some of the
// cases, masqExclude contains the server's address.
func TestMasqExclude(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		exclude []string
		want    [2]string
	}{
		{nil, [2]string{"192.0.2.1", "2001:db8::1"}},
		{[]string{"192.0.2.0/24"}, [2]string{"10.88.0.2", "2001:db8::1"}},
		{[]string{"2001:db8::/32", "198.51.100.0/24"}, [2]string{"192.0.2.1", "fd88::2"}},
	} {
		t.Run(fmt.Sprint(tt.exclude), func(t *testing.T) {
			t.Parallel()
			conf := dual.with(object{"masqExclude": tt.exclude})
			n := newNode(t, conf, "nft")
			outside := n.outside(true)
			c := n.containers(1)
			before := setuptest.Dump(t)
			serve(t, outside, 80)
			n.must("add", c...)
			n.must("check", c...)
			got := [2]string{ask(t, c[0], "tcp", "192.0.2.2", 80), ask(t, c[0], "tcp", "2001:db8::2", 80)}
			if got != tt.want {
				t.Errorf("the server sees %v, want %v", got, tt.want)
			}
			n.must("del", c...)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}

// TestSecondNetwork checks that containers of two networks, each with its own bridge, reach each
// other by their own addresses. If a bridge is full, ADD's error tells the user to add such a
// second network.
func TestSecondNetwork(t *testing.T) {
	t.Parallel()
	both := []string{"10.88.0.0/24", "10.89.0.0/24"}
	n := newNode(t, single, "nft")
	c := n.containers(2)
	first := single.with(object{"masqExclude": both})
	second := first.with(object{"name": "net2", "bridge": "br1", "ipam": object{"type": "ipam-simple", "subnet": both[1]}})
	before := setuptest.Dump(t)
	a, b := on("ADD", 1, first), on("ADD", 2, second)
	a.run(t).ok(t)
	b.run(t).ok(t)
	serve(t, c[0], 80)
	serve(t, c[1], 80)
	got := [2]string{ask(t, c[0], "tcp", "10.89.0.2", 80), ask(t, c[1], "tcp", "10.88.0.2", 80)}
	if want := [2]string{"10.88.0.2", "10.89.0.2"}; got != want {
		t.Errorf("the servers see %v, want %v", got, want)
	}
	a.verb, b.verb = "DEL", "DEL"
	a.run(t).ok(t)
	b.run(t).ok(t)
	setuptest.Same(t, before, "DEL left traces")
}

// TestInvalidPackets flushes conntrack during a connection. The kernel then no longer masquerades
// the connection, so its next packets have the container's private source address. The test checks
// that a rule of bridgeveth drops these packets, unless their destination is in masqExclude.
func TestInvalidPackets(t *testing.T) {
	t.Parallel()
	for _, exclude := range [][]string{nil, {"198.51.100.0/24"}, {"198.51.100.0/24", "192.0.2.0/25"}} {
		t.Run(fmt.Sprint(exclude), func(t *testing.T) {
			t.Parallel()
			testInvalidPackets(t, single.with(object{"masqExclude": exclude}), len(exclude) == 2)
		})
	}
}

func testInvalidPackets(t *testing.T, conf object, excluded bool) {
	n := newNode(t, conf, "nft")
	outside := n.outside(true)
	c := n.containers(1)
	n.must("add", c...)
	setuptest.SetSysctl(t, "netfilter/nf_conntrack_tcp_loose", "0")
	setuptest.In(t, outside, "sh", "-c", "nft add table ip seen; nft add chain ip seen in '{ type filter hook prerouting priority 0; }'; nft add rule ip seen in ip saddr 10.88.0.0/24 'tcp flags & psh == psh' counter")
	var listener net.Listener
	if err := outside.Do(func() (err error) { listener, err = net.Listen("tcp", ":80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	leaks := func() bool {
		conn := dial(t, c[0], "tcp", "192.0.2.2:80")
		if err := n.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte("hello")) // the write succeeds, because the packet goes into the socket's buffer
		for start := time.Now(); time.Since(start) < patience; time.Sleep(20 * time.Millisecond) {
			if !strings.Contains(setuptest.In(t, outside, "nft", "list", "table", "ip", "seen"), "counter packets 0") {
				return true
			}
		}
		return false
	}
	if got := leaks(); got != excluded {
		t.Errorf("a packet left with its private source: %v, want %v", got, excluded)
	}
	n.must("check", c...)
	setuptest.Run(t, "nft", "flush", "chain", "ip", "bridgeveth", "forwarded")
	if !leaks() {
		t.Error("without the rule no packet leaves the host either: the test proves nothing")
	}
}

// TestPortIsolation checks that portIsolation keeps containers of one bridge apart.
func TestPortIsolation(t *testing.T) {
	t.Parallel()
	for _, isolated := range []bool{false, true} {
		t.Run(fmt.Sprint(isolated), func(t *testing.T) {
			t.Parallel()
			conf := single.with(object{"portIsolation": isolated})
			n := newNode(t, conf, "nft")
			outside := n.outside(false)
			c := n.containers(2)
			n.must("add", c...)
			n.must("check", c...)
			if got := setuptest.Ping(t, c[0], "10.88.0.3"); got == isolated {
				t.Errorf("ping from container to container: %v", got)
			}
			if !setuptest.Ping(t, c[0], "10.88.0.1") || !setuptest.Ping(t, c[0], "192.0.2.2") {
				t.Error("no answer from the gateway, or from beyond")
			}
			_ = outside
			port := strings.TrimSpace(setuptest.Run(t, "sh", "-c", "ip -o link show master br0 | sed 's/.*: \\(veth[^@]*\\).*/\\1/' | head -1"))
			setuptest.Run(t, "ip", "link", "set", port, "type", "bridge_slave", "isolated", map[bool]string{true: "off", false: "on"}[isolated])
			if n.cnitool("check", c[0]) == nil && n.cnitool("check", c[1]) == nil {
				t.Error("check does not see that the isolation has changed")
			}
			n.must("del", c...)
		})
	}
}

// TestRouteFields checks that ADD makes routes in the container with all fields that CNI 1.1.0
// defines for routes.
func TestRouteFields(t *testing.T) {
	t.Parallel()
	ipam := dual["ipam"].(object).with(object{"routes": []object{
		{"dst": "198.51.100.0/24", "mtu": 1400, "advmss": 1360, "priority": 50},
		{"dst": "203.0.113.0/24", "gw": "10.88.0.1", "table": 100},
		{"dst": "198.18.0.0/15", "gw": "10.88.0.1", "table": 0},
		{"dst": "2001:db8:1::/48", "mtu": 1300, "priority": 7, "table": 1000},
	}})
	conf := dual.with(object{"ipam": ipam})
	n := newNode(t, conf, "nft")
	c := n.containers(1)
	n.must("add", c...)
	n.must("check", c...)
	got := setuptest.In(t, c[0], "ip", "route", "show", "table", "all") + setuptest.In(t, c[0], "ip", "-6", "route", "show", "table", "all")
	for _, want := range []string{
		"198.51.100.0/24 via 10.88.0.1 dev eth0 metric 50 mtu 1400 advmss 1360", "203.0.113.0/24 via 10.88.0.1 dev eth0 table 100",
		"198.18.0.0/15 via 10.88.0.1 dev eth0 \n", "2001:db8:1::/48 via fd88::1 dev eth0 table 1000 metric 7 mtu 1300",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	n.must("del", c...)
}

// TestRoutesTwice checks routes that the configuration lists more than once, in different
// spellings.
func TestRoutesTwice(t *testing.T) {
	t.Parallel()
	ipam := dual["ipam"].(object).with(object{"routes": []object{
		{"dst": "0.0.0.0/0"}, {"dst": "0.0.0.0/0"}, {"dst": "198.51.100.0/24"}, {"dst": "198.51.100.0/24", "gw": "10.88.0.1"}, {"dst": "198.51.100.0/24", "priority": 7},
		{"dst": "203.0.113.0/24", "table": 100}, {"dst": "203.0.113.0/24", "table": 100}, {"dst": "2001:db8:1::/48"}, {"dst": "2001:db8:1::/48"},
	}})
	conf := dual.with(object{"ipam": ipam})
	n := newNode(t, conf, "nft")
	c := n.containers(1)
	n.must("add", c...)
	n.must("check", c...)
	got := setuptest.In(t, c[0], "ip", "route", "show", "table", "all") // both families
	for route, want := range map[string]int{"default via 10.88.0.1": 1, "198.51.100.0/24 via 10.88.0.1": 2, "203.0.113.0/24 via 10.88.0.1": 1, "2001:db8:1::/48 via fd88::1": 1} {
		if count := strings.Count(got, route); count != want {
			t.Errorf("%q is there %d times, want %d:\n%s", route, count, want, got)
		}
	}
	n.must("del", c...)
}

// TestKeyMistakes checks ADD's errors about wrong values of configuration keys.
func TestKeyMistakes(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft").containers(1)
	before := setuptest.Dump(t)
	for _, tt := range []struct {
		keys object
		want string
	}{
		{object{"masqExclude": []string{"10.0.0.0/8", "here"}}, `masqExclude[1]: "here" is no subnet`},
		{object{"masqExclude": []string{"10.0.0.1/8"}}, `masqExclude[0]: "10.0.0.1/8" is no subnet`},
		{object{"ipMasq": false, "masqExclude": []string{"10.0.0.0/8"}}, "masqExclude: it has no effect without ipMasq"},
		{object{"mtu": "large"}, `mtu: "large" is neither a number of bytes nor "auto"`},
		{object{"mtu": []int{1}}, "mtu: [1] is neither a number of bytes nor"},
		{object{"ipMasqBackend": "firewalld"}, `ipMasqBackend: "firewalld" is none of iptables, nftables`},
		{object{"ingressPolicy": "closed"}, `ingressPolicy: "closed" is none of open, same-bridge, isolated`},
		{object{"gatewayConflict": "win"}, `gatewayConflict: "win" is none of error, replace, add`},
		{object{"gatewayConflict": "add", "forceAddress": true}, `gatewayConflict: "add" contradicts forceAddress`},
		{object{"promiscMode": true, "hairpinMode": true}, "promiscMode: with hairpinMode"},
		{object{"disableContainerInterface": true}, "disableContainerInterface: an interface that is down has no addresses"},
		{object{"ipam": object{}, "isDefaultGateway": false, "ipMasq": false, "disableContainerInterface": true, "sysctl": object{"net.core.somaxconn": "1"}}, "sysctl: it has no effect with disableContainerInterface"},
		{object{"ipam": object{}, "isDefaultGateway": false, "ipMasq": false, "ipspoofchk": true}, `ipspoofchk: it needs addresses`},
		{object{"sysctl": object{"kernel.hostname": "x"}}, `sysctl: "kernel.hostname" is no sysctl below net`},
		{object{"sysctl": object{"net/../kernel/hostname": "x"}}, `sysctl: "net/../kernel/hostname" is no sysctl below net`},
		{object{"sysctl": object{"net.": "x"}}, `sysctl: "net." is no sysctl below net`},
		{object{"sysctl": object{"net.ipv4.ip_forward": 1}}, "sysctl: a JSON number instead of a string"},
		{object{"vlan": 4095}, "vlan: 4095 is not between 1 and 4094"},
		{object{"vlanTrunk": []object{{"minID": 3}}}, `vlanTrunk[0]: an entry needs "id", or both "minID" and "maxID"`},
		{object{"vlan": 5, "vlanTrunk": []object{{"id": 1}, {"minID": 9, "maxID": 8}}}, "vlanTrunk[1]: 9 to 8 is no range between 1 and 4094"},
		{object{"vlanTrunk": []object{{"id": 7}}}, "vlanTrunk: the gateway would be in the bridge's default VLAN"},
		{object{"vlan": 100, "bridge": "bridge-of-12"}, "vlan: the gateway's link would have the name bridge-of-12.100"},
		{object{"portIsolation": "yes"}, "portIsolation: a JSON string instead of true or false"},
	} {
		if f := on("ADD", 1, single.with(tt.keys)).run(t).failed(t); f.Code != 7 || !strings.Contains(f.Msg, tt.want) {
			t.Errorf("got %+v, want code 7, %q", f, tt.want)
		}
	}
	setuptest.Same(t, before, "refusals left traces")
}

// TestAutoMTU checks that ADD with "mtu": "auto" uses the MTU of the host's uplink, and returns
// this MTU in the result.
func TestAutoMTU(t *testing.T) {
	t.Parallel()
	conf := dual.with(object{"mtu": "auto"})
	n := newNode(t, conf, "nft")
	n.outside(false)
	c := n.containers(4)
	for i, tt := range []struct{ prepare, want string }{
		{"true", "1500"}, // the kernel's default MTU, because the host has no default route
		{"ip link set uplink mtu 1420; ip route add default via 192.0.2.2", "1420"},
		{"ip link set uplink mtu 1380; ip route del default; ip -6 route add default via 2001:db8::2", "1380"},
		{"ip link set uplink mtu 1360; ip -6 route del default; ip route add default nexthop via 192.0.2.2 nexthop via 192.0.2.3", "1360"},
	} {
		setuptest.Run(t, "sh", "-c", tt.prepare)
		a := on("ADD", i+1, conf).run(t).ok(t)
		if link := setuptest.In(t, c[i], "ip", "-o", "link", "show", "eth0"); !strings.Contains(link, "mtu "+tt.want+" ") || !strings.Contains(string(a.stdout), `"mtu":`+tt.want) {
			t.Errorf("want %s: %s%s", tt.want, link, a.stdout)
		}
		setuptest.Run(t, "ip", "link", "set", "uplink", "mtu", "1400") // CHECK compares with the MTU in the result of ADD
		on("CHECK", i+1, conf.with(object{"prevResult": json.RawMessage(a.stdout)})).run(t).ok(t)
	}
}

// TestGatewayConflict gives the bridge another address, and calls ADD with each value of
// gatewayConflict. It checks whether ADD fails, and which addresses the bridge has after DEL.
func TestGatewayConflict(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		keys  object
		code  uint // error code; 0 for success
		stays bool
	}{
		{object{}, 101, true},
		{object{"gatewayConflict": "error"}, 101, true},
		{object{"gatewayConflict": "replace"}, 0, false},
		{object{"forceAddress": true}, 0, false},
		{object{"gatewayConflict": "add"}, 0, true},
	} {
		t.Run(fmt.Sprint(tt.keys), func(t *testing.T) {
			t.Parallel()
			n := newNode(t, single, "nft")
			c := n.containers(1)
			setuptest.Run(t, "ip", "link", "add", "br0", "type", "bridge")
			setuptest.Run(t, "ip", "addr", "add", "10.99.0.1/24", "dev", "br0")
			add := on("ADD", 1, single.with(tt.keys)).run(t)
			if tt.code != 0 {
				if f := add.failed(t); f.Code != tt.code {
					t.Errorf("got %+v, want code %d", f, tt.code)
				}
			} else if add.ok(t); !setuptest.Ping(t, c[0], "10.88.0.1") {
				t.Error("no answer from the gateway")
			}
			on("DEL", 1, single.with(tt.keys)).run(t).ok(t)
			addresses := setuptest.Run(t, "ip", "-o", "addr", "show", "br0")
			if strings.Contains(addresses, "10.99.0.1/24") != tt.stays || strings.Contains(addresses, "10.88.0.1") {
				t.Errorf("after the last DEL the bridge has %s", addresses)
			}
		})
	}
}

// TestChangedSubnet changes the name and the subnet of a network. ADD must fail while a container
// of the old subnet runs. After the end of this container, ADD must succeed, and must remove the
// old gateway address from the bridge.
func TestChangedSubnet(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft").containers(2)
	moved := single.with(object{"name": "moved", "ipam": object{"type": "ipam-simple", "subnet": "10.89.0.0/24"}})
	on("ADD", 1, single).run(t).ok(t)
	if f := on("ADD", 2, moved).run(t).failed(t); f.Code != 101 || !strings.Contains(f.Msg, "10.88.0.1/24") {
		t.Errorf("got %+v, want code 101 and the address", f)
	}
	setuptest.Run(t, "ip", "netns", "exec", "c1", "ip", "link", "delete", "eth0")
	on("ADD", 2, moved).run(t).ok(t)
	if addresses := setuptest.Run(t, "ip", "-o", "-4", "addr", "show", "br0"); strings.Contains(addresses, "10.88.0.1") {
		t.Errorf("the bridge has %s", addresses)
	}
	on("DEL", 2, moved).run(t).ok(t)
	on("DEL", 1, single).run(t).ok(t)
}

// TestPromiscMode checks that CHECK reports a bridge that is not promiscuous if the key promiscMode
// is set. Without the key, CHECK must accept a bridge that somebody else has made promiscuous.
func TestPromiscMode(t *testing.T) {
	t.Parallel()
	conf := single.with(object{"promiscMode": true})
	n := newNode(t, conf, "nft")
	c := n.containers(2)
	before := setuptest.Dump(t)
	n.must("add", c[0])
	n.must("check", c[0])
	if link := setuptest.Run(t, "ip", "link", "show", "br0"); !strings.Contains(link, "PROMISC") {
		t.Errorf("not promiscuous: %s", link)
	}
	setuptest.Run(t, "ip", "link", "set", "br0", "promisc", "off")
	if err := n.cnitool("check", c[0]); err == nil || !strings.Contains(err.Error(), "promiscuous mode of bridge br0") {
		t.Errorf("check: %v", err)
	}
	n.must("add", c[1])
	n.must("check", c...)
	n.must("del", c...)
	n.configure(single)
	n.must("add", c[0])
	setuptest.Run(t, "ip", "link", "set", "br0", "promisc", "on")
	n.must("check", c[0])
	n.must("del", c[0])
	setuptest.Same(t, before, "DEL left traces")
}

// TestEnableDAD checks that duplicate address detection finds a second container with the same IPv6
// address. Without the key enabledad, CHECK does not notice the duplicate.
func TestEnableDAD(t *testing.T) {
	t.Parallel()
	for _, enabled := range []bool{false, true} {
		t.Run(fmt.Sprint(enabled), func(t *testing.T) {
			t.Parallel()
			conf := object{"type": "bridgeveth", "bridge": "br0", "enabledad": enabled, "ipam": object{
				"type": "static", "addresses": []object{{"address": "fd88::7/64"}},
			}}
			n := newNode(t, conf, "nft")
			c := n.containers(2)
			a := on("ADD", 1, conf).run(t).ok(t)
			address := func(i int) string { return setuptest.In(t, c[i], "ip", "-o", "addr", "show", "eth0", "to", "fd88::7") }
			if got := address(0); strings.Contains(got, "nodad") == enabled || !enabled && strings.Contains(got, "tentative") {
				t.Errorf("the address is %s", got)
			}
			harness.Await(t, "an address that is no longer tentative", func() bool { return !strings.Contains(address(0), "tentative") })
			on("CHECK", 1, conf.with(object{"prevResult": json.RawMessage(a.stdout)})).run(t).ok(t)
			second := on("ADD", 2, conf.with(object{"runtimeConfig": object{"mac": "02:00:00:00:00:07"}})).run(t).ok(t)
			harness.Await(t, "a duplicate that the kernel has found", func() bool { return !enabled || strings.Contains(address(1), "dadfailed") })
			check := on("CHECK", 2, conf.with(object{"runtimeConfig": object{"mac": "02:00:00:00:00:07"}, "prevResult": json.RawMessage(second.stdout)})).run(t)
			if enabled {
				if f := check.failed(t); f.Code != 103 || !strings.Contains(f.Msg, "fd88::7/64") {
					t.Errorf("CHECK of the duplicate: %+v", f)
				}
			} else {
				check.ok(t)
			}
		})
	}
}

// TestDisableContainerInterface checks that ADD leaves the container's interface down if the key
// disableContainerInterface is set.
func TestDisableContainerInterface(t *testing.T) {
	t.Parallel()
	conf := object{"type": "bridgeveth", "bridge": "br0", "disableContainerInterface": true}
	n := newNode(t, conf, "nft")
	c := n.containers(1)
	before := setuptest.Dump(t)
	n.must("add", c...)
	n.must("check", c...)
	if link := setuptest.In(t, c[0], "ip", "link", "show", "eth0"); strings.Contains(link, ",UP") {
		t.Errorf("it is up: %s", link)
	}
	if f := on("ADD", 1, conf).run(t).failed(t); f.Code != 101 {
		t.Errorf("a name in use: %+v", f)
	}
	setuptest.In(t, c[0], "ip", "link", "set", "eth0", "up")
	n.must("check", c...)
	n.must("del", c...)
	setuptest.Same(t, before, "DEL left traces")
}

// TestSysctl checks that ADD sets sysctls of the container's interface and of its network
// namespace. If ADD fails later, it must restore the sysctls of the namespace.
func TestSysctl(t *testing.T) {
	t.Parallel()
	sysctls := object{"net.ipv4.conf.IFNAME.rp_filter": "2", "net/ipv4/conf/IFNAME/arp_filter": "1", "net.ipv4.ip_local_port_range": "20000 30000"}
	conf := single.with(object{"sysctl": sysctls})
	n := newNode(t, conf, "nft")
	c := n.containers(1)
	get := func() string {
		return setuptest.In(t, c[0], "sh", "-c", "cd /proc/sys/net/ipv4; cat ip_local_port_range; cat conf/eth0.5/rp_filter conf/eth0.5/arp_filter; true")
	}
	add := on("ADD", 1, conf)
	add.ifname = "eth0.5" // a name with a dot
	a := add.run(t).ok(t)
	if got, want := get(), "20000\t30000\n2\n1\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	check := on("CHECK", 1, conf.with(object{"prevResult": json.RawMessage(a.stdout)}))
	check.ifname = add.ifname
	check.run(t).ok(t)
	setuptest.In(t, c[0], "sh", "-c", "echo 0 >/proc/sys/net/ipv4/conf/eth0.5/arp_filter")
	if f := check.run(t).failed(t); f.Code != 103 || !strings.Contains(f.Msg, "sysctl net/ipv4/conf/eth0.5/arp_filter of the container: is 0 instead of 1") {
		t.Errorf("CHECK: %+v", f)
	}
	del := on("DEL", 1, conf)
	del.ifname = add.ifname
	del.run(t).ok(t)

	setuptest.In(t, c[0], "sh", "-c", "echo 32768 60999 >/proc/sys/net/ipv4/ip_local_port_range")
	for _, keys := range []object{
		{"sysctl": object{"net.ipv4.ip_local_port_range": "20000 30000", "net.ipv4.nothing": "1"}},
		{"sysctl": object{"net.ipv4.ip_local_port_range": "many"}},
		{"sysctl": sysctls, "ipam": object{"type": "ipam-simple", "subnet": "10.88.0.0/24", "routes": []object{{"dst": "192.0.2.0/24", "gw": "198.51.100.1"}}}},
	} {
		if f := on("ADD", 1, single.with(keys)).run(t).failed(t); f.Code != 104 {
			t.Errorf("got %+v, want code 104", f)
		}
		if got := setuptest.In(t, c[0], "cat", "/proc/sys/net/ipv4/ip_local_port_range"); got != "32768\t60999\n" {
			t.Errorf("%v: left as %q", keys, got)
		}
	}
}
