package agent

import (
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestTransit checks that the agent adds rules for packets to the pod ranges of the cluster if the
// policy of FORWARD is DROP. The agent must restore the rules after a flush, and add rules for a
// new node. Remove must delete the rules.
func TestTransit(t *testing.T) {
	a, nodes := newAgent(t)
	setuptest.DropForward(t, "iptables")
	before := setuptest.Dump(t)
	has := func(when string, want ...string) {
		t.Helper()
		checkReady(t, a, 200, "ready\n")
		got := setuptest.Run(t, "iptables", "-S")
		for _, part := range append(want, "-A FORWARD -j BRIDGEVETH-FORWARD", "-A BRIDGEVETH-FORWARD -j BRIDGEVETH-TRANSIT") {
			if !strings.Contains(got, part) {
				t.Errorf("%s: no %q:\n%s", when, part, got)
			}
		}
	}
	has("at start", "-A BRIDGEVETH-TRANSIT -d 10.244.1.0/24 ", "-A BRIDGEVETH-TRANSIT -d 10.244.2.0/23 ")
	setuptest.Run(t, "iptables", "-F")
	has("after a flush", "-A BRIDGEVETH-TRANSIT -s 10.244.2.0/23 ")
	nodes.all = append(nodes.all, node("n4", "172.30.0.14", "10.244.4.0/24"))
	has("with another node", "-A BRIDGEVETH-TRANSIT -d 10.244.4.0/24 ")
	setuptest.DropForward(t, "iptables-legacy")
	checkReady(t, a, 200, "ready\nwarning: iptables-legacy filter FORWARD denies packets (policy DROP)")
	setuptest.Run(t, "iptables-legacy", "-P", "FORWARD", "ACCEPT")
	if err := a.Remove(); err != nil {
		t.Error(err)
	}
	after := setuptest.Dump(t)
	if cut, _, _ := strings.Cut(after, "# iptables-legacy"); cut != before {
		t.Errorf("Remove left something: before\n%s\nafter\n%s", before, after)
	}
}
