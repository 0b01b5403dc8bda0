package ipamsimple

import (
	"net/netip"
	"time"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// Plugin holds the verbs of ipam-simple. The separate program ipam-simple uses the zero value. A
// plugin that calls the verbs in its own process sets HasLink and LinkAddresses.
type Plugin struct {
	// HasLink reports whether an attachment still has its link on the host. Such an attachment
	// keeps its lease, even if its network namespace is no longer visible. If HasLink is nil,
	// nothing is known about links.
	HasLink func(ipam.Attachment) bool
	// LinkAddresses returns the addresses on the interfaces of a network's containers. It is called
	// when a network is new to the store. If it is nil, the addresses come only from libcni's
	// records.
	LinkAddresses func(network string) ([]ipam.Lease, error)

	// lockWait is how long a verb waits for the lock on the store. 0 means defaultLockWait.
	lockWait time.Duration
	// claim claims blocks of a shared pool, with the configuration of the network. If it is nil,
	// plugin.ClaimBlocks does this.
	claim func(conf []byte, addresses ...netip.Addr) error
}

// defaultLockWait is long enough even if many other calls get the lock first. Each of them holds
// the lock for less than a millisecond. Only a call that changes the sticky file holds the lock
// longer, during one write to the disk.
const defaultLockWait = 10 * time.Second

// Verbs returns the verbs of the program ipam-simple for the package skel, which calls them.
func Verbs() skel.CNIFuncs {
	var p Plugin
	return skel.CNIFuncs{Add: p.printAdd, Del: p.Del, Check: p.Check, GC: p.GC, Status: p.Status}
}
