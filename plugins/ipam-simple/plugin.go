package ipamsimple

import (
	"time"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// Plugin has the verbs. The zero Plugin is ipam-simple as a program of its own; a plugin that
// calls the verbs in its own process tells it about the links that it has made.
type Plugin struct {
	// HasLink reports whether an attachment still has its link on the host. Such an attachment
	// keeps its lease, also when its network namespace cannot be seen any more. nil: not known.
	HasLink func(ipam.Attachment) bool
	// LinkAddresses returns the addresses that the containers of a network have at their links.
	// It is called when a network is new to the store. nil: none is known.
	LinkAddresses func(network string) ([]ipam.Lease, error)

	// lockWait is how long a verb waits for the lock on the store; 0 is defaultLockWait.
	lockWait time.Duration
}

// defaultLockWait is long enough for many other calls: each holds the lock for less than a
// millisecond, or for one write to the disk when it adds a name with sticky addresses.
const defaultLockWait = 10 * time.Second

// Verbs returns the verbs of the program, for skel.
func Verbs() skel.CNIFuncs {
	var p Plugin
	return skel.CNIFuncs{Add: p.printAdd, Del: p.Del, Check: p.Check, GC: p.GC, Status: p.Status}
}
