package setup_test

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestForwardManyRules checks that EnsureForward moves our jump in FORWARD behind a new jump to one
// of Docker's chains, even if 300 rules of another program come before the new jump. EnsureForward
// usually reads only the first 100 rules of FORWARD.
func TestForwardManyRules(t *testing.T) {
	t.Parallel()
	for _, chain := range []string{"DOCKER-USER", "DOCKER-ISOLATION-STAGE-1"} {
		t.Run(chain, func(t *testing.T) {
			t.Parallel()
			host := setuptest.EnterHost(t)
			dropAll(t, "nft")
			ensure := func(want int) {
				t.Helper()
				if err := host.EnsureForward("br0", unix.AF_INET); err != nil {
					t.Fatal(err)
				}
				if at := slices.Index(rules(t, "iptables", "FORWARD"), "-j BRIDGEVETH-FORWARD"); at != want {
					t.Errorf("our jump is rule %d, want %d", at, want)
				}
			}
			ensure(0)
			setuptest.Run(t, "sh", "-ec", `{ echo "*filter"; for i in $(seq 300); do echo "-A FORWARD -s 192.0.2.9 -j ACCEPT"; done; echo COMMIT; } | iptables-restore -n`)
			ensure(0)
			setuptest.Run(t, "iptables", "-N", chain)
			ensure(0)
			setuptest.Run(t, "iptables", "-A", "FORWARD", "-j", chain)
			if ok, err := host.AcceptsForward("br0", unix.AF_INET); ok || err != nil {
				t.Errorf("AcceptsForward does not see the jump behind the 300 rules: %v", err)
			}
			ensure(301)
			if ok, err := host.AcceptsForward("br0", unix.AF_INET); !ok || err != nil {
				t.Errorf("a rule is still missing: %v", err)
			}
		})
	}
}

// TestForwardLeavesOthers adds two rules of an administrator. The first rule has a match and comes
// before our jump in FORWARD. EnsureForward for a second bridge must not move our jump before this
// rule. The second rule is in INPUT and jumps to BRIDGEVETH-FORWARD. While this rule exists,
// DeleteForward must delete our rules, but not this chain.
func TestForwardLeavesOthers(t *testing.T) {
	t.Parallel()
	for _, flavour := range []string{"nft", "legacy"} {
		t.Run(flavour, func(t *testing.T) {
			t.Parallel()
			host := setuptest.EnterHost(t)
			dropAll(t, flavour)
			program := "iptables-" + flavour
			ensure := func(bridge string) {
				t.Helper()
				if err := host.EnsureForward(bridge, unix.AF_INET); err != nil {
					t.Fatal(err)
				}
			}
			ensure("br0")
			setuptest.Run(t, "sh", "-ec", program+" -I FORWARD -d 192.0.2.9 -j DROP; "+program+" -A INPUT -s 192.0.2.9 -j BRIDGEVETH-FORWARD")
			ensure("br1")
			if got, want := rules(t, program, "FORWARD"), []string{"-d 192.0.2.9/32 -j DROP", "-j BRIDGEVETH-FORWARD"}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			for _, bridge := range []string{"br0", "br1"} {
				if err := host.DeleteForward(bridge); err != nil {
					t.Error(err)
				}
			}
			if left := append(rules(t, program, "FORWARD"), rules(t, program, "BRIDGEVETH-FORWARD")...); len(left) != 1 {
				t.Errorf("rules are left: %q", left)
			}
			setuptest.Run(t, program, "-F", "INPUT")
			ensure("br0")
			if err := host.DeleteForward("br0"); err != nil {
				t.Error(err)
			}
			if got := setuptest.Run(t, program, "-S"); strings.Contains(got, "BRIDGEVETH") {
				t.Errorf("rules or chains are left:\n%s", got)
			}
		})
	}
}
