package netns

import (
	"fmt"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

// lockWait is the longest time that Lock waits for other processes, unless the process has an
// earlier deadline (flock.Limit). The slowest step under the lock starts about twenty iptables
// processes.
const lockWait = 30 * time.Second

// Lock locks the namespace. Many processes can hold a shared lock (flock.Shared) at the same time.
// While a process holds an exclusive lock (flock.Exclusive), no other process holds the lock. The
// error wraps flock.ErrTimeout if another process holds the lock too long.
func (n *Namespace) Lock(mode flock.Mode) (*flock.Lock, error) {
	l, err := flock.AcquireFD(int(n.Handle), mode, lockWait)
	if err != nil {
		return nil, fmt.Errorf("lock the host's network namespace: %w", err)
	}
	if mode == flock.Exclusive { // if this process is killed, a DEL must wait for the iptables that it has started
		l.Inherit()
	}
	return l, nil
}
