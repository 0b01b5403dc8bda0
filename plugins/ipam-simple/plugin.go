package ipamsimple

import (
	"time"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// Plugin holds the verbs. The zero Plugin is ipam-simple as a separate program. A plugin that
// calls the verbs in its own process sets HasLink and LinkAddresses.
type Plugin struct {
	// HasLink reports whether an attachment still has its link on the host. Such an attachment keeps
	// its lease, even if its network namespace is not visible any more. nil means that links are not
	// known.
	HasLink func(ipam.Attachment) bool
	// LinkAddresses returns the addresses on the interfaces of a network's containers. It is called
	// when a network is new to the store. nil means that no address is known.
	LinkAddresses func(network string) ([]ipam.Lease, error)

	// lockWait is how long a verb waits for the lock on the store. 0 means defaultLockWait.
	lockWait time.Duration
}

// defaultLockWait is long enough for many other calls, each of which holds the lock for less than
// a millisecond. A call that adds a name with sticky addresses also holds the lock during one
// write to the disk.
const defaultLockWait = 10 * time.Second

// Verbs returns the verbs of the program, for skel.
func Verbs() skel.CNIFuncs {
	var p Plugin
	return skel.CNIFuncs{Add: p.printAdd, Del: p.Del, Check: p.Check, GC: p.GC, Status: p.Status}
}
