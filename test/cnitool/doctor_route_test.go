package cnitool

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestDoctorRules has routing rules (ip rule) that decide by the source address, with the filter of
// reverse paths and without. The doctor looks for the way back as the kernel does, by those rules, and
// its advice works.
func TestDoctorRules(t *testing.T) {
	const strict = "echo 1 >/proc/sys/net/ipv4/conf/br0/rp_filter; "
	for _, tt := range []struct {
		name, spoil, to string
		want            string // in the obstacle
		advice          string // begins the remedy, and cures it
	}{
		{"a rule for the containers, without the bridge's route", "ip route add default via 192.0.2.2 table 100; ip rule add from 10.88.0.0/24 lookup 100", "10.88.0.1",
			`way back: answers to 10.88.0.2 leave by uplink instead of bridge br0, by the rule "from 10.88.0.0/24 lookup 100"`, "ip rule add to 10.88.0.0/24 lookup main pref 32764"},
		{"the same, with a strict filter", strict + "ip route add default via 192.0.2.2 table 100; ip rule add from 10.88.0.0/24 lookup 100", "10.88.0.1",
			`way back: answers to 10.88.0.2 leave by uplink instead of bridge br0, by the rule "from 10.88.0.0/24 lookup 100"`, "ip rule add to 10.88.0.0/24 lookup main pref 32764"},
		{"the same, on the way to the outside", strict + "ip route add default via 192.0.2.2 table 100; ip rule add from 10.88.0.0/24 lookup 100", "192.0.2.2",
			`way back: answers to 10.88.0.2 leave by uplink instead of bridge br0, by the rule "from 10.88.0.0/24 lookup 100"`, "ip rule add to 10.88.0.0/24 lookup main pref 32764"},
		{"a rule for the answers", "ip route add default via 192.0.2.2 table 100; ip rule add from 192.0.2.2 lookup 100", "192.0.2.2",
			`way back: answers to 10.88.0.2 leave by uplink instead of bridge br0, by the rule "from 192.0.2.2/32 lookup 100"`, "ip rule add to 10.88.0.0/24 lookup main pref 32764"},
		{"the same, with a strict filter", strict + "ip route add default via 192.0.2.2 table 100; ip rule add from 192.0.2.2 lookup 100", "192.0.2.2",
			`way back: answers to 10.88.0.2 leave by uplink instead of bridge br0, by the rule "from 192.0.2.2/32 lookup 100"`, "ip rule add to 10.88.0.0/24 lookup main pref 32764"},
		{"a rule that makes another route right", strict + "ip route add 10.88.0.2/32 dev uplink; ip route add 10.88.0.0/24 dev br0 table 100; for a in 192.0.2.0/24 10.88.0.1; do ip rule add from $a lookup 100; done; iptables -I BRIDGEVETH-ADMIN -s 10.88.0.2 -j DROP", "192.0.2.2",
			"dropped by chain BRIDGEVETH-ADMIN of table ip filter", ""},
		{"a blackhole, with a strict filter", strict + "ip route add blackhole 192.0.2.2", "192.0.2.2",
			"route of the host: no way to 192.0.2.2: a blackhole route", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, single, "nft")
			n.outside(false)
			c := n.containers(1)[0]
			n.must("add", c)
			setuptest.Run(t, "sh", "-c", tt.spoil)
			d, status := doctor(t, c.Path, tt.to)
			if status != 1 || !strings.HasPrefix(d.obstacle(), tt.want) {
				t.Fatalf("status %d, obstacle %q, want %q\n%+v", status, d.obstacle(), tt.want, d)
			}
			if tt.advice == "" {
				return
			}
			if o := d[0].Obstacle; !o.Advice || !strings.HasPrefix(o.Remedy, tt.advice) {
				t.Fatalf("remedy %q, want the advice %q", o.Remedy, tt.advice)
			}
			setuptest.Run(t, "sh", "-c", tt.advice)
			if d, status := doctor(t, c.Path, tt.to); status != 0 {
				t.Errorf("after %q: obstacle %q\n%+v", tt.advice, d.obstacle(), d)
			}
		})
	}
}

// secondUplink gives the host another link, uplink2, to the same outside, which has 198.51.100.7, and
// the default route by it.
func (n *node) secondUplink() (outside *setup.Namespace) {
	n.t.Helper()
	outside = n.outside(false)
	setuptest.Run(n.t, "sh", "-c", `ip link add uplink2 type veth peer name eth1 netns outside
		ip addr add 192.0.3.1/24 dev uplink2; ip link set uplink2 up
		ip -n outside addr add 192.0.3.2/24 dev eth1; ip -n outside link set eth1 up
		ip -n outside link set lo up; ip -n outside addr add 198.51.100.7/32 dev lo
		ip route add default via 192.0.3.2; ip route add default via 192.0.2.2 metric 100`)
	return outside
}

// TestDoctorTwoUplinks has two ways to the world. Replies leave by one of them, whichever the
// request came in by.
func TestDoctorTwoUplinks(t *testing.T) {
	const note = "requests to its host ports that come in by uplink are answered by uplink2"
	said := func(d diagnosis) bool {
		for _, s := range d[0].Stations {
			if s.State == "note" && strings.Contains(s.What, note) {
				return true
			}
		}
		return false
	}
	published := func(t *testing.T) *node {
		n := newNode(t, single.with(object{"capabilities": object{"portMappings": true}}), "nft")
		ports, err := json.Marshal(object{"portMappings": []object{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}})
		if err != nil {
			t.Fatal(err)
		}
		n.env = []string{"CAP_ARGS=" + string(ports)}
		return n
	}
	t.Run("host ports", func(t *testing.T) {
		t.Parallel()
		n := published(t)
		n.secondUplink()
		c := n.containers(1)[0]
		n.must("add", c)
		if d, status := doctor(t, c.Path, "198.51.100.7"); status != 0 || !said(d) {
			t.Errorf("status %d, obstacle %q, want the note %q\n%+v", status, d.obstacle(), note, d)
		}
		setuptest.Run(t, "ip", "rule", "add", "fwmark", "1", "lookup", "100") // somebody sees to it
		if d, _ := doctor(t, c.Path, "198.51.100.7"); said(d) {
			t.Errorf("with a rule for marked packets: %+v", d)
		}
	})
	t.Run("no host ports", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, single, "nft")
		n.secondUplink()
		c := n.containers(1)[0]
		n.must("add", c)
		if d, status := doctor(t, c.Path, "198.51.100.7"); status != 0 || said(d) {
			t.Errorf("status %d, obstacle %q\n%+v", status, d.obstacle(), d)
		}
	})
	t.Run("the answer comes in by the other one", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, single, "nft")
		outside := n.secondUplink()
		for _, link := range []string{"all", "eth0", "eth1"} {
			if err := outside.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/"+link+"/rp_filter", []byte("0"), 0) }); err != nil {
				t.Fatal(err)
			}
		}
		setuptest.In(t, outside, "ip", "route", "add", "192.0.3.1/32", "via", "192.0.2.1")
		if !setuptest.Ping(t, outside, "192.0.2.1") { // whose MAC it knows now: a strict filter drops ARP requests from 198.51.100.7
			t.Fatal("no answer from the host")
		}
		setuptest.SetSysctl(t, "ipv4/conf/uplink/rp_filter", "1")
		c := n.containers(1)[0]
		n.must("add", c)
		const want = "the request left by uplink2, and its answer came in by uplink"
		d, status := doctor(t, c.Path, "198.51.100.7")
		if status != 1 || !strings.HasPrefix(d.obstacle(), "dropped by the filter of reverse paths: ") || !strings.Contains(d.obstacle(), want) {
			t.Fatalf("status %d, obstacle %q, want %q\n%+v", status, d.obstacle(), want, d)
		}
		const advice = "sysctl -w net.ipv4.conf.uplink.rp_filter=2"
		if o := d[0].Obstacle; !strings.Contains(o.Remedy, advice) {
			t.Fatalf("remedy %q, want %q", o.Remedy, advice)
		}
		setuptest.Run(t, "sh", "-c", advice)
		if d, status := doctor(t, c.Path, "198.51.100.7"); status != 0 {
			t.Errorf("after %q: %q\n%+v", advice, d.obstacle(), d)
		}
	})
}
