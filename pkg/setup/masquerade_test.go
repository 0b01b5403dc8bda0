package setup_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestMasqueradeRules checks that the masquerade rules of two bridges are added and deleted
// independently, and that a second call for the same bridge changes nothing. nft(8) must be able to
// load its own listing of our tables.
func TestMasqueradeRules(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	before := setuptest.Dump(t)
	four, six := netip.MustParsePrefix("10.88.0.0/20"), netip.MustParsePrefix("fd88::/60")
	for _, bridge := range []string{"br0", "br01", "br0"} {
		if err := host.EnsureMasquerade(bridge, four, six); err != nil {
			t.Fatal(err)
		}
	}
	for _, family := range []string{"ip", "ip6"} {
		list := setuptest.Run(t, "nft", "list", "table", family, "bridgeveth")
		if got := strings.Count(list, "masquerade comment"); got != 2 {
			t.Errorf("%d rules, want one for each bridge:\n%s", got, list)
		}
		setuptest.Run(t, "sh", "-c", "nft list table "+family+" bridgeveth >/run/saved && nft delete table "+family+" bridgeveth && nft -f /run/saved")
		if diff := cmp.Diff(list, setuptest.Run(t, "nft", "list", "table", family, "bridgeveth")); diff != "" {
			t.Errorf("after saving and loading (-before +after):\n%s", diff)
		}
	}
	for _, bridge := range []string{"br0", "br0", "br01"} {
		if err := host.DeleteRules(bridge); err != nil {
			t.Fatal(err)
		}
	}
	setuptest.Same(t, before, "DeleteRules left traces")
}
