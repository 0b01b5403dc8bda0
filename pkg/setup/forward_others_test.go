package setup_test

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestForwardBehindMany has hundreds of rules of others, which AttachPort does not read to the end.
// It still finds a jump to DOCKER-USER behind them, and puts our jump behind that one.
func TestForwardBehindMany(t *testing.T) {
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
				t.Errorf("the jump behind them is not seen: %v", err)
			}
			ensure(301)
			if ok, err := host.AcceptsForward("br0", unix.AF_INET); !ok || err != nil {
				t.Errorf("something is missing still: %v", err)
			}
		})
	}
}

// TestForwardLeavesOthers has an administrator's rule with a match before our jump. The rule keeps
// its place when the rules of another bridge are added. The administrator's own jump to our chain
// does not stop the deletion of our rules.
func TestForwardLeavesOthers(t *testing.T) {
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
				t.Errorf("left are %q", left)
			}
			setuptest.Run(t, program, "-F", "INPUT")
			ensure("br0")
			if err := host.DeleteForward("br0"); err != nil {
				t.Error(err)
			}
			if got := setuptest.Run(t, program, "-S"); strings.Contains(got, "BRIDGEVETH") {
				t.Errorf("left are\n%s", got)
			}
		})
	}
}
