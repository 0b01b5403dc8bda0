package cnitool

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestDoctorRules checks the doctor on hosts with routing rules (ip rule) that select packets by
// the source address. The doctor must find the return path by these rules, as the kernel does. If
// the doctor advises a command, this command must fix the path. Some cases have a strict rp_filter.
func TestDoctorRules(t *testing.T) {
	t.Parallel()
	const strict = "echo 1 >/proc/sys/net/ipv4/conf/br0/rp_filter; "
	for _, tt := range []struct {
		name, spoil, to string
		want            string // part of the obstacle's text
		advice          string // beginning of the remedy, a command that fixes the fault
	}{
		{"a rule for the containers, without the bridge's route", "ip route add default via 192.0.2.2 table 100; ip rule add from 10.88.0.0/24 lookup 100", "10.88.0.1",
			`return path: answers to 10.88.0.2 leave by uplink instead of bridge br0, because of the routing rule "from 10.88.0.0/24 lookup 100"`, "ip rule add to 10.88.0.0/24 lookup main pref 32764"},
		{"a rule for the containers, with a strict filter", strict + "ip route add default via 192.0.2.2 table 100; ip rule add from 10.88.0.0/24 lookup 100", "10.88.0.1",
			`return path: answers to 10.88.0.2 leave by uplink instead of bridge br0, because of the routing rule "from 10.88.0.0/24 lookup 100"`, "ip rule add to 10.88.0.0/24 lookup main pref 32764"},
		{"a rule for the containers, on the way to the outside", strict + "ip route add default via 192.0.2.2 table 100; ip rule add from 10.88.0.0/24 lookup 100", "192.0.2.2",
			`return path: answers to 10.88.0.2 leave by uplink instead of bridge br0, because of the routing rule "from 10.88.0.0/24 lookup 100"`, "ip rule add to 10.88.0.0/24 lookup main pref 32764"},
		{"a rule for the answers", "ip route add default via 192.0.2.2 table 100; ip rule add from 192.0.2.2 lookup 100", "192.0.2.2",
			`return path: answers to 10.88.0.2 leave by uplink instead of bridge br0, because of the routing rule "from 192.0.2.2/32 lookup 100"`, "ip rule add to 10.88.0.0/24 lookup main pref 32764"},
		{"a rule for the answers, with a strict filter", strict + "ip route add default via 192.0.2.2 table 100; ip rule add from 192.0.2.2 lookup 100", "192.0.2.2",
			`return path: answers to 10.88.0.2 leave by uplink instead of bridge br0, because of the routing rule "from 192.0.2.2/32 lookup 100"`, "ip rule add to 10.88.0.0/24 lookup main pref 32764"},
		{"a rule that makes another route right", strict + "ip route add 10.88.0.2/32 dev uplink; ip route add 10.88.0.0/24 dev br0 table 100; for a in 192.0.2.0/24 10.88.0.1; do ip rule add from $a lookup 100; done; iptables -I BRIDGEVETH-ADMIN -s 10.88.0.2 -j DROP", "192.0.2.2",
			"dropped by chain BRIDGEVETH-ADMIN of table ip filter", ""},
		{"a blackhole, with a strict filter", strict + "ip route add blackhole 192.0.2.2", "192.0.2.2",
			"route of the host: no route to 192.0.2.2: a blackhole route", ""},
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

// secondUplink makes a second link, uplink2, between the host and the namespace "outside". The host
// gets a default route through this link, and the namespace gets the address 198.51.100.7.
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

// TestDoctorTwoUplinks checks the doctor on a host with two uplinks. The host sends replies through
// one uplink, even if the request came in by the other.
func TestDoctorTwoUplinks(t *testing.T) {
	t.Parallel()
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
		setuptest.Run(t, "ip", "rule", "add", "fwmark", "1", "lookup", "100") // an administrator routes marked packets
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
	t.Run("a route with two next hops", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, single, "nft")
		n.secondUplink()
		setuptest.Run(t, "sh", "-c", "ip route del default; ip route del default; ip route add default nexthop via 192.0.2.2 nexthop via 192.0.3.2")
		c := n.containers(1)[0]
		n.must("add", c)
		d, status := doctor(t, c.Path, "198.51.100.7")
		if status != 0 {
			t.Errorf("status %d, obstacle %q\n%+v", status, d.obstacle(), d)
		}
		for _, s := range d[0].Stations {
			if s.Name == "route of the host" && s.What != "to 198.51.100.7 by uplink" && s.What != "to 198.51.100.7 by uplink2" {
				t.Errorf("%+v", s)
			}
		}
	})
	t.Run("the answer comes in by the other uplink", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, single, "nft")
		outside := n.secondUplink()
		for _, link := range []string{"all", "eth0", "eth1"} {
			if err := outside.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/"+link+"/rp_filter", []byte("0"), 0) }); err != nil {
				t.Fatal(err)
			}
		}
		setuptest.In(t, outside, "ip", "route", "add", "192.0.3.1/32", "via", "192.0.2.1")
		// This ping makes a neighbour entry for the host in the namespace "outside". Without the
		// entry, this namespace would later send an ARP request from 198.51.100.7. A strict
		// rp_filter would drop the request, because the host's route to 198.51.100.7 is through
		// uplink2.
		if !setuptest.Ping(t, outside, "192.0.2.1") {
			t.Fatal("no answer from the host")
		}
		setuptest.SetSysctl(t, "ipv4/conf/uplink/rp_filter", "1")
		c := n.containers(1)[0]
		n.must("add", c)
		const want = "the request left by uplink2, and its answer came in by uplink"
		d, status := doctor(t, c.Path, "198.51.100.7")
		if status != 1 || !strings.HasPrefix(d.obstacle(), "dropped by rp_filter: ") || !strings.Contains(d.obstacle(), want) {
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

// TestDoctorNodeRoute checks the doctor's report about a pod on another node. The node is behind
// uplink2, but the host has no route to the node's pod range. The doctor must print the command
// that adds the route.
func TestDoctorNodeRoute(t *testing.T) {
	t.Parallel()
	cluster := dual.with(object{"masqExclude": []string{"10.244.0.0/16", "fd44::/56"}})
	for _, tt := range []struct{ name, routes, to, want, advice string }{
		{"the default route takes the packet", "ip route add default via 192.0.2.2", "10.244.2.2",
			"route of the host: 10.244.2.2 is the address of a pod (masqExclude 10.244.0.0/16), and the host has only the default route to it, by uplink", "ip route add 10.244.2.0/24 via NODE"},
		{"the default route takes the packet, IPv6", "ip -6 route add default via 2001:db8::2", "fd44:0:0:2::2",
			"route of the host: fd44:0:0:2::2 is the address of a pod (masqExclude fd44::/56), and the host has only the default route to it, by uplink", "ip -6 route add fd44:0:0:2::/64 via NODE"},
		{"no route at all", "true", "10.244.2.2",
			"route of the host: 10.244.2.2 is the address of a pod (masqExclude 10.244.0.0/16), and the host has no route to it", "ip route add 10.244.2.0/24 via NODE"},
	} {
		for _, from := range []string{"configuration", "record"} {
			t.Run(tt.name+"/range of the "+from, func(t *testing.T) {
				t.Parallel()
				n := newNode(t, cluster, "nft")
				n.outside(false)
				setuptest.Container(t, "node")
				setuptest.Run(t, "sh", "-c", `ip link add uplink2 type veth peer name eth0 netns node
					for a in 192.0.3.1/24 2001:db8:3::1/64; do ip addr add $a dev uplink2 nodad; done; ip link set uplink2 up
					for a in 192.0.3.2/24 2001:db8:3::2/64; do ip -n node addr add $a dev eth0 nodad; done; ip -n node link set eth0 up; ip -n node link set lo up
					for a in 10.244.2.2 fd44:0:0:2::2; do ip -n node addr add $a dev lo; done
					ip -n node route add default via 192.0.3.1; ip -n node -6 route add default via 2001:db8:3::1`)
				c := n.containers(1)[0]
				n.must("add", c)
				if from == "record" {
					n.configure(dual)
				}
				setuptest.Run(t, "sh", "-c", tt.routes)
				d, status := doctor(t, c.Path, tt.to)
				if status != 1 || !strings.HasPrefix(d.obstacle(), tt.want) {
					t.Fatalf("status %d, obstacle %q, want %q\n%+v", status, d.obstacle(), tt.want, d)
				}
				if remedy := d[0].Obstacle.Remedy; !d[0].Obstacle.Advice || !strings.HasPrefix(remedy, tt.advice) {
					t.Fatalf("remedy %q, want %q", remedy, tt.advice)
				}
				node := "192.0.3.2"
				if strings.Contains(tt.to, ":") {
					node = "2001:db8:3::2"
				}
				setuptest.Run(t, "sh", "-c", strings.ReplaceAll(tt.advice, "NODE", node))
				if d, status := doctor(t, c.Path, tt.to); status != 0 || !d[0].Answered {
					t.Errorf("after the advice: status %d, obstacle %q\n%+v", status, d.obstacle(), d)
				}
			})
		}
	}
}

// TestDoctorCloudRoutes checks that the doctor accepts the default route as the way to pods of
// other nodes. In a cloud, the router often has the routes to these pods.
func TestDoctorCloudRoutes(t *testing.T) {
	t.Parallel()
	n := newNode(t, single.with(object{"masqExclude": []string{"10.244.0.0/16"}}), "nft")
	outside := n.outside(true)
	setuptest.In(t, outside, "ip", "addr", "add", "10.244.2.2/32", "dev", "lo")
	setuptest.In(t, outside, "ip", "link", "set", "lo", "up")
	setuptest.Run(t, "ip", "route", "add", "default", "via", "192.0.2.2")
	c := n.containers(1)[0]
	n.must("add", c)
	d, status := doctor(t, c.Path, "10.244.2.2")
	if status != 0 || !d[0].Answered {
		t.Fatalf("status %d, obstacle %q\n%+v", status, d.obstacle(), d)
	}
	for _, s := range d[0].Stations {
		if s.State != "good" {
			t.Errorf("%+v", s)
		}
	}
}
