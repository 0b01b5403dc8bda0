package agent

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestBadInput checks that each mistake in the cluster or on the host causes a line in the log and
// on /readyz. If the mistake is about the own node, the agent must change nothing, whether the node
// was ready before or not. If the mistake is about a peer, the agent must still serve all other
// peers.
func TestBadInput(t *testing.T) {
	const own, peer = true, false
	for _, tt := range []struct {
		name    string
		own     bool
		mistake func(t *testing.T, a *Agent, nodes []cluster.Node)
		line    string
	}{
		{"no podCIDR", own, func(_ *testing.T, _ *Agent, nodes []cluster.Node) { nodes[0].Ranges = nil }, "node n1: spec.podCIDRs is empty"},
		{"no InternalIP", own, func(_ *testing.T, _ *Agent, nodes []cluster.Node) { nodes[0].Addresses = nil }, "node n1: status.addresses has no InternalIP"},
		{"the InternalIP of no link", own, func(_ *testing.T, _ *Agent, nodes []cluster.Node) {
			nodes[0].Addresses = []netip.Addr{netip.MustParseAddr("172.30.0.99")}
		}, "node n1: no link of this host has the InternalIP [172.30.0.99]"},
		{"the range of an older node", own, func(_ *testing.T, _ *Agent, nodes []cluster.Node) {
			nodes[0].Created, nodes[1].Ranges = time.Unix(1, 0), nodes[0].Ranges
		}, "node n1: spec.podCIDRs: 10.244.1.0/24 overlaps with 10.244.1.0/24 of the older node n2"},
		{"the own address in the range", own, func(_ *testing.T, _ *Agent, nodes []cluster.Node) {
			nodes[0].Ranges = []netip.Prefix{netip.MustParsePrefix("172.30.0.0/24")}
		}, "node n1: spec.podCIDRs: 172.30.0.0/24 contains 172.30.0.11, the InternalIP of this node"},
		{"the range of the services", own, func(_ *testing.T, a *Agent, _ []cluster.Node) {
			a.Settings.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
		}, "node n1: spec.podCIDRs: 10.244.1.0/24 overlaps with the service range 10.244.0.0/16"},
		{"the range of a bridge", own, func(t *testing.T, _ *Agent, _ []cluster.Node) {
			setuptest.Run(t, "ip", "link", "add", "docker0", "type", "bridge")
			setuptest.Run(t, "ip", "addr", "add", "10.244.0.1/22", "dev", "docker0")
		}, "node n1: spec.podCIDRs: 10.244.1.0/24 overlaps with 10.244.0.0/22 of link docker0"},
		{"a peer with the own range", peer, func(_ *testing.T, _ *Agent, nodes []cluster.Node) {
			nodes[2].Created, nodes[2].Ranges = time.Unix(1, 0), nodes[0].Ranges
		}, "node n3: spec.podCIDRs: 10.244.1.0/24 overlaps with 10.244.1.0/24 of the older node n1"},
		{"a peer without InternalIP", peer, func(_ *testing.T, _ *Agent, nodes []cluster.Node) { nodes[2].Addresses = nil }, "node n3: status.addresses has no InternalIP"},
		{"a peer with the own InternalIP", peer, func(_ *testing.T, _ *Agent, nodes []cluster.Node) { nodes[2].Addresses = nodes[0].Addresses }, "node n3: its InternalIP 172.30.0.11 is also that of this node"},
		{"a peer with the range of a bridge", peer, func(t *testing.T, _ *Agent, _ []cluster.Node) {
			setuptest.Run(t, "ip", "link", "add", "docker0", "type", "bridge")
			setuptest.Run(t, "ip", "addr", "add", "10.244.3.1/24", "dev", "docker0")
		}, "node n3: spec.podCIDRs: 10.244.3.0/24 overlaps with 10.244.3.0/24 of link docker0"},
	} {
		for _, wasReady := range []bool{false, true} {
			name := tt.name + ", from the beginning"
			if wasReady {
				name = tt.name + ", later"
			}
			t.Run(name, func(t *testing.T) {
				a, nodes := newAgent(t)
				if wasReady {
					checkReady(t, a, 200, "ready\n")
				}
				tt.mistake(t, a, nodes.all)
				log := &bytes.Buffer{}
				a.Log = slog.New(slog.NewTextHandler(log, nil))
				before := setuptest.Dump(t)
				want := "ready\nwarning: " + tt.line
				if tt.own {
					want = "not ready: " + tt.line
				}
				checkReady(t, a, map[bool]int{own: 503, peer: 200}[tt.own], want)
				if !strings.Contains(log.String(), tt.line) {
					t.Errorf("not in the log: %s\n%s", tt.line, log)
				}
				if exists(t, a.Conflist.Path) != (wasReady || !tt.own) {
					t.Errorf("conflist: %v", !wasReady)
				}
				if tt.own {
					setuptest.Same(t, before, "the agent changed something")
				} else if routes := setuptest.Run(t, "ip", "route", "show", "proto", "97"); !strings.Contains(routes, "10.244.2.0/24 via 172.30.0.12 dev uplink0") || strings.Contains(routes, "10.244.3.0/24") {
					t.Errorf("routes:\n%s", routes)
				}
			})
		}
	}
}
