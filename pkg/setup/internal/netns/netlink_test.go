package netns

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestRepeat checks which errors make Repeat call the function again, and that Repeat gives up.
func TestRepeat(t *testing.T) {
	for _, again := range []error{netlink.ErrDumpInterrupted, unix.ERESTART} {
		calls := 0
		f := func() error {
			if calls++; calls < attempts {
				return fmt.Errorf("list: %w", again)
			}
			return unix.EPERM
		}
		if err := Repeat(f); !errors.Is(err, unix.EPERM) || calls != attempts {
			t.Errorf("%v: got %v after %d calls, want EPERM after %d", again, err, calls, attempts)
		}
		calls = -1
		if err := Repeat(f); !errors.Is(err, ErrChanging) || calls != attempts-1 {
			t.Errorf("%v: got %v after %d calls, want ErrChanging after %d", again, err, calls, attempts-1)
		}
	}
}
