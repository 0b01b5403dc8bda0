package cnitool

import (
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestIngressPolicy checks which packets reach containers under each policy (open, same-bridge
// and isolated), with and without br_netfilter.
func TestIngressPolicy(t *testing.T) {
	t.Parallel()
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
				// With br_netfilter, packets to a host port of a container on the same bridge are
				// not routed. They go from bridge port to bridge port, so port isolation drops
				// them.
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
					// A route through the gateway bypasses the isolation of bridge ports.
					setuptest.In(t, c[1], "ip", "route", "add", "10.88.0.2/32", "via", "10.88.0.1")
					if got := ask(t, c[1], "tcp", "10.88.0.2", 80); got != "" {
						t.Errorf("sibling, through the gateway: answered %s", got)
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

// TestIngressPolicyChanges changes the ingress policy of a network with running containers. It
// checks that CHECK fails, and that the next ADD applies the new policy.
func TestIngressPolicyChanges(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := n.containers(4)
	for i, policy := range []string{"same-bridge", "isolated", "open"} {
		n.configure(single.with(object{"ingressPolicy": policy}))
		if i > 0 && n.cnitool("check", c[i-1]) == nil {
			t.Errorf("CHECK does not report that the policy is not %s yet", policy)
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
