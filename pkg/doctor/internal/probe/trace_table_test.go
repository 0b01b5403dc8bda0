package probe

import (
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestDeleteLeftovers checks that DeleteLeftovers deletes the trace tables of a killed doctor, and no
// other table. Before Linux 5.12, the kernel does not delete these tables itself.
func TestDeleteLeftovers(t *testing.T) {
	t.Parallel()
	setuptest.EnterHost(t)
	const others = "table ip bridgeveth-doctors\ntable inet filter\n"
	setuptest.Run(t, "nft", "add table ip bridgeveth-doctors; add table inet filter")
	for _, leftovers := range []string{"add table bridge bridgeveth-doctor; add table ip bridgeveth-doctor; add table netdev bridgeveth-doctor", ""} {
		if leftovers != "" {
			setuptest.Run(t, "nft", leftovers)
		}
		if err := DeleteLeftovers(); err != nil {
			t.Fatal(err)
		}
		if got := setuptest.Run(t, "nft", "list", "tables"); got != others {
			t.Errorf("after %q: got the tables\n%swant\n%s", leftovers, got, others)
		}
	}
}
