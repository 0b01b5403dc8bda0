package netns

import (
	"fmt"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

// lockWait is how long Lock waits for other processes, unless the process has a shorter deadline
// (flock.Limit). The longest step under the lock starts some twenty iptables processes.
const lockWait = 30 * time.Second

// Lock locks the namespace, against exclusive locks or, with flock.Exclusive, against all locks of
// other processes. The error wraps flock.ErrTimeout if another process holds the lock too long.
func (n *Namespace) Lock(mode flock.Mode) (*flock.Lock, error) {
	l, err := flock.AcquireFD(int(n.Handle), mode, lockWait)
	if err != nil {
		return nil, fmt.Errorf("lock the host's network namespace: %w", err)
	}
	return l, nil
}
