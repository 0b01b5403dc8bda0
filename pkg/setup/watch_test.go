package setup_test

import (
	"testing"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestWatchRules checks that each of the three time limits of RuleWatch.Wait ends the call. The
// limits "quiet" and "most" apply after a change of the ruleset, the limit "idle" without a change.
// In each case, the two other limits are an hour, which is too long to end the call.
func TestWatchRules(t *testing.T) {
	t.Parallel()
	w, err := setuptest.EnterHost(t).WatchRules()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, tt := range []struct {
		name              string
		change            bool
		quiet, most, idle time.Duration
	}{
		{"most", true, time.Hour, 10 * time.Millisecond, time.Hour},
		{"quiet", true, 10 * time.Millisecond, time.Hour, time.Hour},
		{"idle", false, time.Hour, time.Hour, 10 * time.Millisecond},
	} {
		if tt.change {
			setuptest.Run(t, "nft", "add", "table", "ip", "other")
			setuptest.Run(t, "nft", "delete", "table", "ip", "other")
		}
		if err := w.Wait(tt.quiet, tt.most, tt.idle); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
