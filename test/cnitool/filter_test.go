package cnitool

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestIngressPolicy sends packets to containers of networks that are open to all, to
// their own bridge, and to nobody, with and without br_netfilter.
func TestIngressPolicy(t *testing.T) {
	for _, tt := range []struct {
		policy           string
		sibling, another bool
	}{
		{"open", true, true},
		{"same-bridge", true, false},
		{"isolated", false, false},
	} {
		for _, netfilter := range []string{"1", "0"} {
			t.Run(tt.policy+" br_netfilter="+netfilter, func(t *testing.T) {
				t.Parallel()
				conf := dual.with(object{"ingressPolicy": tt.policy})
				n := newNode(t, conf, "nft")
				setuptest.SetSysctl(t, "bridge/bridge-nf-call-iptables", netfilter)
				setuptest.SetSysctl(t, "bridge/bridge-nf-call-ip6tables", netfilter)
				outside := n.outside(true)
				c := n.containers(3)
				neighbour := dual.with(object{"name": "neighbour", "bridge": "br1", "ipMasq": false, "ipam": object{
					"type": "ipam-simple", "ranges": [][]object{{{"subnet": "10.89.0.0/24"}}, {{"subnet": "fd89::/64"}}},
				}})
				before := setuptest.Dump(t)
				for i := 1; i <= 2; i++ {
					on("ADD", i, publishing(conf, object{"hostPort": 8000 + i, "containerPort": 80})).run(t).ok(t)
				}
				on("ADD", 3, neighbour).run(t).ok(t)
				for _, server := range append(c, outside) {
					serve(t, server, 80)
				}
				// What br_netfilter translates is still a frame from port to port.
				routed := tt.policy != "isolated" || netfilter == "0"
				for _, p := range []struct {
					name string
					from *setup.Namespace
					to   string
					port int
					want bool
				}{
					{"sibling", c[1], "10.88.0.2", 80, tt.sibling}, {"sibling", c[1], "fd88::2", 80, tt.sibling},
					{"another network", c[2], "10.88.0.2", 80, tt.another}, {"another network", c[2], "fd88::2", 80, tt.another},
					{"another network, the answer", c[0], "10.89.0.2", 80, true}, {"another network, the answer", c[0], "fd89::2", 80, true},
					{"outside", outside, "10.88.0.2", 80, true}, {"outside", outside, "fd88::2", 80, true},
					{"host", n.Namespace, "10.88.0.2", 80, true}, {"host", n.Namespace, "fd88::2", 80, true},
					{"to outside", c[0], "192.0.2.2", 80, true}, {"to outside", c[0], "2001:db8::2", 80, true},
					{"sibling, published", c[1], "192.0.2.1", 8001, routed},
					{"another network, published", c[2], "192.0.2.1", 8001, true},
					{"itself, published", c[0], "192.0.2.1", 8001, routed},
					{"outside, published", outside, "192.0.2.1", 8001, true},
				} {
					if got := ask(t, p.from, "tcp", p.to, p.port) != ""; got != p.want {
						t.Errorf("%s to %s:%d: %v, want %v", p.name, p.to, p.port, got, p.want)
					}
				}
				if tt.policy == "isolated" {
					// By way of the gateway, past the bridge's own idea of isolation.
					setuptest.In(t, c[1], "ip", "route", "add", "10.88.0.2/32", "via", "10.88.0.1")
					if got := ask(t, c[1], "tcp", "10.88.0.2", 80); got != "" {
						t.Errorf("sibling by the gateway: answered %s", got)
					}
				}
				for i := 1; i <= 2; i++ {
					on("DEL", i, conf).run(t).ok(t)
				}
				on("DEL", 3, neighbour).run(t).ok(t)
				setuptest.Same(t, before, "DEL left traces")
			})
		}
	}
}

// TestIngressPolicyChanges shows that a policy can be changed while containers run:
// CHECK of one says that it was, and the next ADD makes it so.
func TestIngressPolicyChanges(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := n.containers(4)
	for i, policy := range []string{"same-bridge", "isolated", "open"} {
		n.configure(single.with(object{"ingressPolicy": policy}))
		if i > 0 && n.cnitool("check", c[i-1]) == nil {
			t.Errorf("check does not see that the policy has become %s", policy)
		}
		n.must("add", c[i])
		n.must("check", c[i])
		rules := setuptest.Run(t, "nft", "list", "table", "ip", "bridgeveth")
		if want := map[bool]int{true: 0, false: 1}[policy == "open"]; strings.Count(rules, "br0 ingress") != want ||
			strings.Count(rules, "br0 ingress "+policy) != want {
			t.Errorf("%s: want %d rules in\n%s", policy, want, rules)
		}
	}
	n.must("del", c[:3]...)
}

// TestSpoofing has a container send under addresses of others. The illness comes
// first: without the guard a neighbour sees every one of the frames.
func TestSpoofing(t *testing.T) {
	const (
		mac, other   = "0a580a580002", "0a580a580003" // of the first two containers, as ADD makes them
		all          = "ffffffffffff"
		ip           = "0800" + "4500003800000000400100000a58%s0a580003"
		ip6          = "86dd" + "6000000000103b40" + "fd8800000000000000000000000000%s" + "fd880000000000000000000000000003"
		arp          = "0806" + "0001080006040002" + mac + "0a58%s" + other + "0a580003"
		ownV4, byV4  = "0002", "0063"
		tagged       = "8100" + "0000"
		linkLocal    = "86dd" + "6000000000103b40" + "fe80000000000000" + "08580afffe580002" + "fd880000000000000000000000000003"
		unspecified  = "86dd" + "6000000000103b40" + "00000000000000000000000000000000" + "ff0200000000000000000001ff000002"
		somethingNew = "88b5"
		advertised   = "86dd" + "6000000000203aff" + "fd880000000000000000000000000002" + "fd880000000000000000000000000003" +
			"88000000e0000000" + "fd8800000000000000000000000000%s" + "0201" + mac
	)
	frames := []struct {
		name     string
		text     string
		mac, all bool // a guard of MAC, and of IP addresses besides, lets it pass
	}{
		{"its own IPv4", other + mac + fmt.Sprintf(ip, ownV4), true, true},
		{"its own IPv6", other + mac + fmt.Sprintf(ip6, "02"), true, true},
		{"its own ARP", all + mac + fmt.Sprintf(arp, ownV4), true, true},
		{"its link-local address", other + mac + linkLocal, true, true},
		{"looking for duplicates", other + mac + unspecified, true, true},
		{"another MAC", all + "0a580a580009" + fmt.Sprintf(ip, ownV4), false, false},
		{"another MAC and ARP", all + "0a580a580009" + fmt.Sprintf(arp, ownV4), false, false},
		{"another IPv4", other + mac + fmt.Sprintf(ip, byV4), true, false},
		{"another IPv6", other + mac + fmt.Sprintf(ip6, "63"), true, false},
		{"ARP for another", all + mac + fmt.Sprintf(arp, byV4), true, false},
		{"advertising itself as a neighbour", other + mac + fmt.Sprintf(advertised, "02"), true, true},
		{"advertising the gateway as itself", other + mac + fmt.Sprintf(advertised, "01"), true, false},
		{"another IPv4 behind a tag", other + mac + tagged + fmt.Sprintf(ip, byV4), true, false},
		{"another protocol", all + mac + somethingNew, true, false},
	}
	for _, key := range []string{"", "macspoofchk", "ipspoofchk"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			conf := dual
			if key != "" {
				conf = dual.with(object{key: true})
			}
			n := newNode(t, conf, "nft")
			for _, family := range []string{"ip", "ip6"} { // it looks at checksums
				setuptest.SetSysctl(t, "bridge/bridge-nf-call-"+family+"tables", "0")
			}
			c := n.containers(2)
			before := setuptest.Dump(t)
			n.must("add", c...)
			n.must("check", c...)
			for _, f := range frames {
				want := key == "" || key == "macspoofchk" && f.mac || key == "ipspoofchk" && f.all
				if got := passes(t, c[0], c[1], f.text); got != want {
					t.Errorf("%s: arrived: %v, want %v", f.name, got, want)
				}
			}
			for _, to := range []string{"10.88.0.3", "fd88::3", "10.88.0.1"} {
				if !setuptest.Ping(t, c[0], to) {
					t.Errorf("no answer from %s", to)
				}
			}
			if key != "" {
				setuptest.Run(t, "nft", "flush", "map", "bridge", "bridgeveth", "guarded")
				if err := n.cnitool("check", c[0]); err == nil || !strings.Contains(err.Error(), "guarded") {
					t.Errorf("check does not see that the guard is gone: %v", err)
				}
			}
			n.must("del", c...)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}

// TestGuardGone takes the guard of a port away in each way that a DEL may come, while
// another port keeps its own.
func TestGuardGone(t *testing.T) {
	conf := dual.with(object{"ipspoofchk": true})
	port := setup.Attachment{Network: "net", Container: "c1", Interface: "eth0"}.Port()
	valid := conf.with(object{"cni.dev/valid-attachments": []object{{"containerID": "c2", "ifname": "eth0"}}})
	for _, tt := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"DEL", func(t *testing.T) { on("DEL", 1, conf).run(t).ok(t) }},
		{"DEL without the key", func(t *testing.T) { on("DEL", 1, dual).run(t).ok(t) }},
		{"DEL when its link is gone", func(t *testing.T) {
			setuptest.Run(t, "ip", "link", "delete", port)
			on("DEL", 1, conf).run(t).ok(t)
		}},
		{"GC", func(t *testing.T) { call{verb: "GC", conf: valid}.run(t).ok(t) }},
		{"GC when its link is gone", func(t *testing.T) {
			setuptest.Run(t, "ip", "link", "delete", port)
			call{verb: "GC", conf: valid}.run(t).ok(t)
		}},
		{"another ADD when its link is gone", func(t *testing.T) {
			setuptest.Run(t, "ip", "link", "delete", port)
			on("ADD", 1, conf).run(t).ok(t)
			on("DEL", 1, conf).run(t).ok(t)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newNode(t, conf, "nft").containers(2)
			on("ADD", 2, conf).run(t).ok(t)
			before := setuptest.Dump(t)
			on("ADD", 1, conf).run(t).ok(t)
			tt.do(t)
			setuptest.Same(t, before, "it left traces")
			on("DEL", 2, conf).run(t).ok(t)
		})
	}
}
