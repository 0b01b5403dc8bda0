package cnitool

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// TestRepair removes parts of the host's setup, such as rules or the bridge, while containers run.
// It checks that CHECK then fails, that bvctl repair restores the parts, and that a second repair
// has nothing to do.
func TestRepair(t *testing.T) {
	t.Parallel()
	conf := dual.with(object{"ipspoofchk": true, "ingressPolicy": "same-bridge", "capabilities": object{"portMappings": true}})
	for _, tt := range []struct {
		name, spoil string
		want        []string // parts of the output
		unseen      bool     // packets pass in spite of the missing part
	}{
		{"FORWARD flushed", "iptables -F FORWARD; ip6tables -F FORWARD", []string{"restored rules of bridge br0 in iptables-nft filter FORWARD"}, false},
		{"our chain flushed", "iptables -F BRIDGEVETH-FORWARD; ip6tables -F BRIDGEVETH-FORWARD", []string{"restored rules of bridge br0 in ip6tables-nft filter FORWARD"}, false},
		{"ruleset flushed, Docker's policy set again", "nft flush ruleset; iptables -P FORWARD DROP; ip6tables -P FORWARD DROP",
			[]string{"masquerade of 10.88.0.0/24", "host ports of port", "guard of port", "rules of bridge br0"}, false},
		{"our tables deleted", "nft delete table ip bridgeveth; nft delete table ip6 bridgeveth; nft delete table bridge bridgeveth", []string{"host ports of port", "guard of port"}, false},
		{"elements deleted", "nft flush map ip bridgeveth ports; nft flush map ip6 bridgeveth ports; nft flush map bridge bridgeveth guarded", []string{"host ports of port", "guard of port"}, false},
		{"forwarding off", "echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding", []string{"restored sysctl net/ipv4/ip_forward=1"}, false},
		{"gateway gone", "ip addr flush dev br0", []string{"address 10.88.0.1/24 of bridge br0", "address fd88::1/64 of bridge br0"}, false},
		{"bridge down", "ip link set br0 down", []string{"state up of bridge br0"}, false},
		{"bridge deleted", "ip link del br0", []string{"restored bridge br0", "settings of port"}, false},
		{"ports off the bridge", "for p in $(ls /sys/class/net/br0/brif 2>/dev/null || ip -o link show master br0 | sed 's/^[0-9]*: //; s/@.*//'); do ip link set $p nomaster; done", []string{"settings of port"}, false},
		{"ports down", "for p in $(ip -o link show master br0 | sed 's/^[0-9]*: //; s/@.*//'); do ip link set $p down; done", []string{"settings of port"}, false},
		{"MTU of a port", "ip link set $(ip -o link show master br0 | sed -n '1s/^[0-9]*: //; 1s/@.*//p') mtu 1400", []string{"settings of port"}, true},
		{"hairpin off", "for p in $(ip -o link show master br0 | sed 's/^[0-9]*: //; s/@.*//'); do ip link set $p type bridge_slave hairpin off; done", []string{"settings of port"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, conf, "nft")
			published := []string{`CAP_ARGS={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}`}
			n.env = published
			outside := n.outside(false)
			c := n.containers(2)
			n.must("add", c[0])
			n.env = nil
			n.must("add", c[1])
			serve(t, c[0], 80)
			serve(t, outside, 80)
			all := func() (broken []string) {
				for _, p := range []struct {
					name     string
					from     *setup.Namespace
					to, want string
					port     int
				}{
					{"sibling", c[1], "10.88.0.2", "10.88.0.3", 80}, {"sibling", c[1], "fd88::2", "fd88::3", 80},
					{"to outside", c[0], "192.0.2.2", "192.0.2.1", 80}, {"to outside", c[0], "2001:db8::2", "2001:db8::1", 80},
					{"host port", outside, "192.0.2.1", "192.0.2.2", 8080}, {"host port", outside, "2001:db8::1", "2001:db8::2", 8080},
					{"its own host port", c[0], "192.0.2.1", "10.88.0.1", 8080},
				} {
					if got := ask(t, p.from, "tcp", p.to, p.port); got != p.want {
						broken = append(broken, p.name+" "+p.to)
					}
				}
				return broken
			}
			if broken := all(); len(broken) > 0 {
				t.Fatalf("at first %v", broken)
			}
			setuptest.Run(t, "sh", "-c", tt.spoil)
			n.env = published
			if len(all()) == 0 && !tt.unseen || n.cnitool("check", c[0]) == nil {
				t.Error("nothing is broken: the test proves nothing")
			}
			out, status := bvctl(t, "repair")
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not in\n%s", want, out)
				}
			}
			broken := all()
			for range 3 { // the kernel repeats an ARP request once a second
				if len(broken) > 0 {
					broken = all()
				}
			}
			if status != 0 || len(broken) > 0 {
				t.Errorf("status %d, still broken %v:\n%s", status, broken, out)
			}
			n.must("check", c[0])
			n.env = nil
			n.must("check", c[1])
			if out, status := bvctl(t, "repair"); status != 0 || out != "nothing was missing\n" {
				t.Errorf("the second time: status %d, %s", status, out)
			}
			n.must("del", c...)
		})
	}
}

// TestNextADDRestores flushes rules as other programs do. It checks that the next ADD restores the
// rules for all containers of the network, and that bvctl repair also restores the host ports.
func TestNextADDRestores(t *testing.T) {
	t.Parallel()
	conf := dual.with(object{"capabilities": object{"portMappings": true}})
	for _, tt := range []struct {
		name, wipe string
		ports      bool // ADD restores the host ports
	}{
		{"FORWARD flushed", "iptables -F FORWARD; ip6tables -F FORWARD", true},
		{"all of iptables flushed", "iptables -F; iptables -X; ip6tables -F; ip6tables -X", true},
		{"ruleset flushed, Docker's policy set again", "nft flush ruleset; iptables -P FORWARD DROP; ip6tables -P FORWARD DROP", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, conf, "nft")
			outside, c := n.outside(true), n.containers(3)
			published := []string{`CAP_ARGS={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}`}
			n.env = published
			n.must("add", c[0])
			n.env = nil
			n.must("add", c[1])
			serve(t, c[0], 80)
			serve(t, outside, 80)
			type way struct {
				name, to string
				from     *setup.Namespace
				port     int
				want     string // the source address that the other end must see
			}
			ways := []way{
				{"sibling", "10.88.0.2", c[1], 80, "10.88.0.3"}, {"sibling", "fd88::2", c[1], 80, "fd88::3"},
				{"to outside", "192.0.2.2", c[0], 80, "192.0.2.1"}, {"to outside", "2001:db8::2", c[0], 80, "2001:db8::1"},
				{"from outside", "10.88.0.2", outside, 80, "192.0.2.2"}, {"from outside", "fd88::2", outside, 80, "2001:db8::2"},
			}
			ports := []way{
				{"host port", "192.0.2.1", outside, 8080, "192.0.2.2"}, {"host port", "2001:db8::1", outside, 8080, "2001:db8::2"},
				{"its own host port", "192.0.2.1", c[0], 8080, "10.88.0.1"},
			}
			open := func(when string, ways []way, want bool) {
				t.Helper()
				for _, w := range ways {
					if got := ask(t, w.from, "tcp", w.to, w.port); (got == w.want) != want {
						t.Errorf("%s: %s %s: the server sees %q, want %q: %v", when, w.name, w.to, got, w.want, want)
					}
				}
			}
			open("at first", append(ways, ports...), true)
			setuptest.Run(t, "sh", "-c", tt.wipe)
			open("when it is wiped", ways, false)
			n.must("add", c[2])
			open("after the next ADD", ways, true)
			open("after the next ADD", ports, tt.ports)
			if out, status := bvctl(t, "repair"); status != 0 {
				t.Errorf("repair: status %d, %s", status, out)
			}
			open("after a repair", append(ways, ports...), true)
			n.must("del", c...)
		})
	}
}

// TestFlushedChains flushes one of bridgeveth's chains at a time. It checks that CHECK names the
// chain, and that the next ADD, or bvctl repair, restores each rule exactly once.
func TestFlushedChains(t *testing.T) {
	t.Parallel()
	const another = "0a580a580003" + "0a580a580009" + "0800" + "45000038000000004001" + "00000a5800020a580003" // a frame with a MAC address of another container
	conf := dual.with(object{
		"ipspoofchk": true, "ingressPolicy": "same-bridge", "inbound": "established", "forwardMark": "0x100000",
		"masqExclude": []string{"203.0.113.0/24"}, "capabilities": object{"portMappings": true},
	})
	for _, tt := range []struct {
		family, chain string
		broken        bool // a packet passes that must be dropped, or is dropped although it must pass
	}{
		{"ip", "prerouting", true}, {"ip", "hostports", true}, {"ip", "locally", true}, {"ip", "postrouting", false},
		{"ip", "answers", false}, {"ip", "forwarded", false}, {"ip", "marking", false},
		{"ip6", "prerouting", true}, {"ip6", "hostports", true}, {"ip6", "forwarded", false},
		{"bridge", "arriving", true}, {"bridge", "guard_mac", true}, {"bridge", "guard_address", true},
	} {
		for _, cure := range []string{"repair", "ADD"} {
			t.Run(tt.family+" "+tt.chain+" "+cure, func(t *testing.T) {
				t.Parallel()
				n := newNode(t, conf, "nft")
				setuptest.SetSysctl(t, "bridge/bridge-nf-call-iptables", "0") // br_netfilter would drop frames with wrong checksums
				outside, c := n.outside(false), n.containers(3)
				before := setuptest.Dump(t)
				publish := func(port int) {
					n.env = []string{fmt.Sprintf(`CAP_ARGS={"portMappings": [{"hostPort": %d, "containerPort": 80, "protocol": "tcp"}]}`, port)}
				}
				for i := range 2 {
					publish(8080 + i)
					n.must("add", c[i])
				}
				serve(t, c[0], 80)
				publish(8080)
				broken := func() bool {
					switch {
					case tt.family == "bridge":
						return passes(t, c[0], c[1], another)
					case tt.chain == "locally":
						return ask(t, n.Namespace, "tcp", "127.0.0.1", 8080) == ""
					case tt.family == "ip6":
						return ask(t, outside, "tcp", "2001:db8::1", 8080) == ""
					}
					return ask(t, outside, "tcp", "192.0.2.1", 8080) == ""
				}
				if broken() {
					t.Fatal("a check fails before the flush")
				}
				rules := func() []string {
					list := strings.Split(setuptest.Run(t, "nft", "-s", "list", "table", tt.family, "bridgeveth"), "\n")
					slices.Sort(list)
					return list
				}
				whole := rules()
				setuptest.Run(t, "nft", "flush", "chain", tt.family, "bridgeveth", tt.chain)
				if got := broken(); got != tt.broken {
					t.Errorf("broken by the flush: %v, want %v", got, tt.broken)
				}
				if err := n.cnitool("check", c[0]); err == nil || !strings.Contains(err.Error(), ": missing") {
					t.Errorf("CHECK says %v", err)
				}
				if cure == "ADD" {
					publish(8082)
					n.must("add", c[2])
					n.must("del", c[2])
					publish(8080)
				} else if out, status := bvctl(t, "repair"); status != 0 || !strings.Contains(out, "restored") {
					t.Errorf("status %d: %s", status, out)
				}
				if broken() {
					t.Error("a check fails after the repair")
				}
				if diff := cmp.Diff(whole, rules()); diff != "" {
					t.Errorf("the rules are not as they were (-want +got):\n%s", diff)
				}
				n.must("check", c[0])
				n.must("del", c...)
				setuptest.Same(t, before, "DEL left traces")
			})
		}
	}
}

// TestRepairWithoutRecord checks that bvctl repairs networks whose containers have no record of
// libcni. bvctl then uses the configuration files of the networks.
func TestRepairWithoutRecord(t *testing.T) {
	t.Parallel()
	conf := dual.with(object{"ingressPolicy": "same-bridge"})
	n := newNode(t, conf, "nft")
	c := n.containers(4)
	other := single.with(object{"bridge": "br1", "ipam": object{"type": "ipam-simple", "subnet": "10.89.0.0/24"}})
	n.configure(other)
	if err := os.Rename("/run/net.d/10-net.conflist", "/run/net.d/20-other.conflist"); err != nil {
		t.Fatal(err)
	}
	setuptest.Run(t, "sed", "-i", `s/"name":"net"/"name":"other"/`, "/run/net.d/20-other.conflist")
	n.configure(conf)
	other["name"] = "other"
	on("ADD", 4, other).run(t).ok(t)
	without := setuptest.Dump(t)
	for i := range 3 {
		on("ADD", i+1, conf).run(t).ok(t)
	}
	before := setuptest.Dump(t)
	if out, status := bvctl(t, "repair"); status != 0 || out != "nothing was missing\n" {
		t.Errorf("status %d, %s", status, out)
	}
	setuptest.Same(t, before, "repair changed something")
	rules := func() string {
		return setuptest.Run(t, "sh", "-c", "nft -s list table ip bridgeveth | grep br0; nft -s list table ip6 bridgeveth | grep br0")
	}
	whole := rules()
	setuptest.Run(t, "sh", "-c", "nft flush ruleset; iptables -P FORWARD DROP; ip6tables -P FORWARD DROP; ip addr flush dev br0; echo 0 >/proc/sys/net/ipv4/ip_forward")
	if setuptest.Ping(t, c[0], "10.88.0.3") {
		t.Error("the ping passes: the test proves nothing")
	}
	out, status := bvctl(t, "leases", "check")
	if strings.Count(out, "masquerade of 10.88.0.0/24") != 1 {
		t.Errorf("leases check: status %d, %s", status, out)
	}
	out, status = bvctl(t, "repair")
	if status != 0 || strings.Count(out, "network net: restored masquerade of 10.88.0.0/24") != 1 || !strings.Contains(out, "ingress") {
		t.Errorf("status %d, %s", status, out)
	}
	for _, to := range []string{"10.88.0.3", "10.88.0.1", "fd88::1"} {
		if !setuptest.Ping(t, c[0], to) {
			t.Errorf("no answer from %s still", to)
		}
	}
	if got := setuptest.Sysctl(t, "ipv4/ip_forward"); got != "1" {
		t.Errorf("ip_forward is %s", got)
	}
	if diff := cmp.Diff(whole, rules()); diff != "" {
		t.Errorf("the rules are not as they were (-want +got):\n%s", diff)
	}
	// This is a second copy of an existing rule. DEL must remove both copies.
	setuptest.Run(t, "nft", "add", "rule", "ip", "bridgeveth", "forwarded", "counter", "comment", `"br0 10.88.0.0/24 invalid"`)
	for i := range 3 {
		on("DEL", i+1, conf).run(t).ok(t)
	}
	setuptest.Same(t, without, "DEL left traces")
	on("DEL", 4, other).run(t).ok(t)
}

// TestCheckAndRepairAgree checks that `bvctl leases check` reports the missing parts that `bvctl
// repair` then restores, even if the network's configuration was changed or deleted.
func TestCheckAndRepairAgree(t *testing.T) {
	t.Parallel()
	conf := dual.with(object{"capabilities": object{"portMappings": true}})
	for _, tt := range []struct{ name, do, want string }{
		{"a host port", "nft flush map ip bridgeveth ports", "host port tcp *:8080 to the container: is false"},
		{"rules of a network", "nft delete table ip bridgeveth", "network net: masquerade of 10.88.0.0/24 behind br0: missing"},
		{"its configuration is gone", "rm /run/net.d/*; nft delete table ip bridgeveth", "network net: masquerade of 10.88.0.0/24 behind br0: missing"},
		{"a port down", "ip link set $(ip -o link show master br0 | sed -n '1s/^[0-9]*: //; 1s/@.*//p') down", "up: is false"},
		{"its configuration is of another bridge", "sed -i s/br0/br7/ /run/net.d/*", ""},
		{"its configuration is of another bridge, no records", "sed -i s/br0/br7/ /run/net.d/*; rm -r /var/lib/cni/results", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, conf, "nft")
			c := n.containers(2)
			n.env = []string{`CAP_ARGS={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}`}
			n.must("add", c[0])
			n.env = nil
			n.must("add", c[1])
			const well, nothing = "4 leases: no problems found\n", "nothing was missing\n"
			if out, _ := bvctl(t, "leases", "check"); out != well {
				t.Fatalf("at first: %s", out)
			}
			setuptest.Run(t, "sh", "-ec", tt.do)
			before := setuptest.Dump(t)
			out, status := bvctl(t, "leases", "check")
			setuptest.Same(t, before, "it changed something")
			if tt.want == "" && out != well || tt.want != "" && (status != 1 || strings.Count(out, tt.want) != 1) {
				t.Errorf("status %d, want %q once in\n%s", status, tt.want, out)
			}
			if out, status := bvctl(t, "repair"); status != 0 || (out == nothing) != (tt.want == "") {
				t.Errorf("repair: status %d, %s", status, out)
			}
			if tt.want == "" {
				setuptest.Same(t, before, "repair changed something")
			}
			if out, _ := bvctl(t, "leases", "check"); out != well {
				t.Errorf("not restored: %s", out)
			}
		})
	}
}

// TestRepairVerifies replaces iptables by a program that does nothing and reports success. It
// checks that bvctl repair reports the rules as still missing.
func TestRepairVerifies(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "legacy")
	c := n.containers(1)
	n.must("add", c...)
	setuptest.Run(t, "iptables-legacy", "-F", "FORWARD")
	if err := os.WriteFile("/run/iptables-legacy", []byte("#!/bin/sh\necho iptables v1.8.9 (legacy)\n[ \"$3\" != -C ]\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(programs, "bvctl"), "repair")
	cmd.Env = append(os.Environ(), "PATH=/run:"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err == nil || strings.Contains(string(out), "restored") || !strings.Contains(string(out), "rules of bridge br0 in iptables-legacy filter FORWARD: still missing") {
		t.Errorf("%v: %s", err, out)
	}
	n.must("del", c...)
}

// TestRepairHostPortTaken checks the repair of a container that has lost one of its host ports to
// another container. bvctl repair must report the taken host port, and change no host port of
// either container.
func TestRepairHostPortTaken(t *testing.T) {
	t.Parallel()
	n := newNode(t, single.with(object{"capabilities": object{"portMappings": true}}), "nft")
	n.outside(false)
	c := n.containers(2)
	publish := func(ports string) { n.env = []string{`CAP_ARGS={"portMappings": [` + ports + `]}`} }
	const first, second = `{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}`, `{"hostPort": 8081, "containerPort": 81, "protocol": "tcp"}`
	publish(first + ", " + second)
	n.must("add", c[0])
	setuptest.Run(t, "nft", "delete", "element", "ip", "bridgeveth", "ports", "{ tcp . 8081 }")
	publish(second)
	n.must("add", c[1])
	before := setuptest.Run(t, "nft", "list", "map", "ip", "bridgeveth", "ports")
	out, err := exec.Command(filepath.Join(programs, "bvctl"), "repair").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "host port tcp *:8081 is taken") {
		t.Errorf("%v: %s", err, out)
	}
	if after := setuptest.Run(t, "nft", "list", "map", "ip", "bridgeveth", "ports"); after != before || strings.Count(after, "tcp .") != 2 {
		t.Errorf("repair has changed\n%sto\n%s", before, after)
	}
}

// TestRepairWatch checks that `bvctl repair --watch` restores deleted rules immediately.
func TestRepairWatch(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := n.containers(2)
	n.must("add", c...)
	passes := func() bool { return setuptest.Ping(t, c[0], "10.88.0.3") }
	harness.Daemon(t, filepath.Join(programs, "bvctl"), "repair", "--watch", "--conf-dir", "/run/net.d")
	for _, spoil := range []string{"iptables -F FORWARD", "nft flush ruleset; iptables -P FORWARD DROP", "iptables -F FORWARD"} {
		setuptest.Run(t, "sh", "-c", spoil)
		if passes() {
			t.Logf("%s: it was restored already", spoil)
		}
		harness.Await(t, "the ping to pass again", passes)
	}
}

// TestRepairPrivileges checks that bvctl repair needs only the capability NET_ADMIN, which it has
// in the DaemonSet of deploy/.
func TestRepairPrivileges(t *testing.T) {
	t.Parallel()
	conf := dual.with(object{"ipspoofchk": true, "capabilities": object{"portMappings": true, "bandwidth": true}})
	n := newNode(t, conf, "nft")
	n.env = []string{`CAP_ARGS={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}], "bandwidth": {"ingressRate": 8000000, "ingressBurst": 8000000, "egressRate": 8000000, "egressBurst": 8000000}}`}
	c := n.containers(1)[0]
	n.must("add", c)
	setuptest.Run(t, "sh", "-ec", "nft flush ruleset; tc qdisc del dev $(tc qdisc show | sed -n 's/^qdisc tbf .* dev \\(veth[^ ]*\\) root.*/\\1/p') root")
	repair := "setpriv --bounding-set=-all,+net_admin --inh-caps=-all " + filepath.Join(programs, "bvctl") + " --conf-dir /run/net.d repair"
	out := setuptest.Run(t, "sh", "-c", repair)
	for _, part := range []string{"host ports of port", "guard of port", "bandwidth of port", "masquerade of"} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q: %s", part, out)
		}
	}
	n.must("check", c)
	if out := setuptest.Run(t, "sh", "-c", repair); !strings.Contains(out, "nothing was missing") {
		t.Errorf("the second time: %s", out)
	}
}

// TestBridgeCreatedAgain deletes a bridge that another program has created, and creates the bridge again,
// as "ifdown br0; ifup br0" does. The bridge then has another MAC address. bvctl repair must correct the
// containers' neighbour entries, so that containers reach their gateways at once.
func TestBridgeCreatedAgain(t *testing.T) {
	t.Parallel()
	n := newNode(t, dual, "nft")
	const create = "ip link add br0 type bridge && ip link set br0 up && ip addr add 10.88.0.1/24 dev br0 && ip addr add fd88::1/64 dev br0 nodad"
	setuptest.Run(t, "sh", "-c", create)
	c := n.containers(2)
	n.must("add", c...)
	gateways := []string{"10.88.0.1", "fd88::1"}
	for _, c := range c {
		for _, family := range []string{"ipv4", "ipv6"} { // the container's neighbour entries do not expire during the test
			setuptest.In(t, c, "sh", "-c", "echo 36000000 >/proc/sys/net/"+family+"/neigh/eth0/base_reachable_time_ms")
		}
		for _, g := range gateways {
			if !setuptest.Ping(t, c, g) {
				t.Fatalf("at first, gateway %s does not answer", g)
			}
		}
	}
	setuptest.Run(t, "sh", "-c", "ip link del br0 && "+create)
	if n.cnitool("check", c[0]) == nil {
		t.Error("CHECK does not notice that the port is on no bridge")
	}
	if out, status := bvctl(t, "repair"); status != 0 {
		t.Fatal(out)
	}
	for _, c := range c {
		n.must("check", c)
		for _, g := range gateways {
			if !setuptest.Ping(t, c, g) {
				t.Errorf("gateway %s does not answer after the repair: %s", g, setuptest.In(t, c, "ip", "neigh"))
			}
		}
	}
	n.must("del", c...)
}
