package setup_test

import (
	"testing"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestWatchHearsOfAll changes rules all the time while RuleWatch waits for a pause. The wait ends
// all the same, and also if nobody changes anything.
func TestWatchHearsOfAll(t *testing.T) {
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
		{"no end of changes", true, time.Hour, 10 * time.Millisecond, time.Hour},
		{"one change", true, 10 * time.Millisecond, time.Hour, time.Hour},
		{"no change", false, time.Hour, time.Hour, 10 * time.Millisecond},
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
