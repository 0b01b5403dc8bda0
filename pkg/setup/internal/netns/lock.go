package netns

import (
	"fmt"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

// lockWait is how long a step waits for others to be done with the bridge, unless the process
// has less time (flock.Limit). The longest of them runs some twenty iptables processes.
const lockWait = 30 * time.Second

// Lock takes the lock on the namespace: nobody else holds it exclusively meanwhile, or at all.
func (n *Namespace) Lock(mode flock.Mode) (*flock.Lock, error) {
	l, err := flock.AcquireFD(int(n.Handle), mode, lockWait)
	if err != nil {
		return nil, fmt.Errorf("lock the host's network namespace: %w", err)
	}
	return l, nil
}
