package cnitool

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// TestTwentyAtOnce attaches twenty containers in parallel to a bridge that does not exist yet, and
// detaches them in parallel. It checks that each rule exists only once in each table, and that
// nothing is left at the end.
func TestTwentyAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t, dual, "nft", "legacy")
	n.containers(20)
	before := setuptest.Dump(t)
	atOnce := func(verb string) {
		t.Helper()
		var started []*exec.Cmd
		for i := range 20 {
			cmd := on(verb, i+1, dual).command(t)
			var said strings.Builder
			cmd.Stdout, cmd.Stderr = &said, &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			started = append(started, cmd)
		}
		for _, cmd := range started {
			if err := cmd.Wait(); err != nil {
				t.Errorf("%s: %v: %s", verb, err, cmd.Stdout)
			}
		}
	}
	atOnce("ADD")
	for _, program := range []string{"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"} {
		rules := setuptest.Run(t, program, "-S")
		for rule, want := range map[string]int{"-A FORWARD": 1, "-A BRIDGEVETH-FORWARD": 3, "-N BRIDGEVETH-FORWARD": 1} {
			if got := strings.Count(rules, rule); got != want {
				t.Errorf("%s: %d times %q, want %d:\n%s", program, got, rule, want, rules)
			}
		}
	}
	for _, family := range []string{"ip", "ip6"} {
		if got := strings.Count(setuptest.Run(t, "nft", "list", "table", family, "bridgeveth"), "masquerade comment"); got != 1 {
			t.Errorf("%s: %d masquerade rules, want 1", family, got)
		}
	}
	held := map[string]bool{}
	for _, l := range leases(t) {
		held[strings.Fields(l)[1]] = true
	}
	if len(held) != 40 {
		t.Errorf("%d different addresses, want 40: %v", len(held), held)
	}
	if got := setuptest.Run(t, "ip", "-o", "link", "show", "type", "bridge"); strings.Count(got, "\n") != 1 {
		t.Errorf("want one bridge:\n%s", got)
	}
	atOnce("DEL")
	setuptest.Same(t, before, "20 at once left traces")
	noLeases(t)
}

// TestTwoNetworks attaches containers of two networks whose bridges have similar names: br0 and
// br01. Both networks use the same chain, jump rule and table. The test checks that the rules of
// one network remain when the last container of the other is detached.
func TestTwoNetworks(t *testing.T) {
	t.Parallel()
	other := dual.with(object{"name": "other", "bridge": "br01", "ipam": object{"type": "ipam-simple", "ranges": [][]object{
		{{"subnet": "10.89.0.0/24"}}, {{"subnet": "fd89::/64"}},
	}}})
	n := newNode(t, dual, "nft")
	c := n.containers(4)
	before := setuptest.Dump(t)
	for i := range 2 {
		on("ADD", i+1, dual).run(t).ok(t)
		on("ADD", i+3, other).run(t).ok(t)
	}
	alone := []string{"10.89.0.3", "fd89::3"}
	reach := func(when string) {
		t.Helper()
		for _, to := range alone {
			if !setuptest.Ping(t, c[2], to) {
				t.Errorf("%s: no answer from %s", when, to)
			}
		}
	}
	reach("with both")
	for i := range 2 {
		on("DEL", i+1, dual).run(t).ok(t)
	}
	reach("without the other")
	if rules := setuptest.Run(t, "iptables", "-S"); strings.Contains(rules, "br0 ") || strings.Count(rules, "br01") != 2 {
		t.Errorf("want the rules of br01 alone:\n%s", rules)
	}
	on("ADD", 1, dual).run(t).ok(t)
	for i := range 2 {
		on("DEL", i+3, other).run(t).ok(t)
	}
	if !setuptest.Ping(t, c[0], "10.88.0.1") {
		t.Error("no answer from the gateway")
	}
	on("DEL", 1, dual).run(t).ok(t)
	setuptest.Same(t, before, "DEL left traces")
	for _, network := range []string{"net", "other"} {
		if left, err := harness.Leases(network); err != nil || len(left) > 0 {
			t.Errorf("leases of %s are left: %v, %v", network, left, err)
		}
	}
}

// TestSecondInterface checks that two interfaces of one container on the same network are separate
// attachments: DEL of one leaves the other.
func TestSecondInterface(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := n.containers(1)
	conf := single.with(object{"isDefaultGateway": false, "isGateway": true})
	before := setuptest.Dump(t)
	second := on("ADD", 1, conf)
	second.ifname = "eth1"
	on("ADD", 1, conf).run(t).ok(t)
	second.run(t).ok(t)
	on("DEL", 1, conf).run(t).ok(t)
	if links := setuptest.In(t, c[0], "ip", "-o", "link"); strings.Contains(links, "eth0") || !strings.Contains(links, "eth1") {
		t.Errorf("want eth1 alone:\n%s", links)
	}
	if !setuptest.Ping(t, c[0], "10.88.0.1") {
		t.Error("no answer from the gateway")
	}
	if held := leases(t); fmt.Sprint(held) != "[c1 10.88.0.3/24]" {
		t.Errorf("leases %v, want that of eth1", held)
	}
	second.verb = "DEL"
	second.run(t).ok(t)
	setuptest.Same(t, before, "DEL left traces")
}
