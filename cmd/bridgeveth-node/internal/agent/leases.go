package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// lockWait is how long the agent waits for the lock on the lease store while a plugin holds this
// lock.
const lockWait = 5 * time.Second

// leases holds what the agent reads from the lease store of the pods' network.
type leases struct {
	known   bool                 // the IPAM plugin is ipam-simple, and its store could be read
	usage   []ipam.Usage         // the number of leased and free addresses in each range
	subnets []attachment.Address // one address of each subnet in which running pods have addresses
}

// leases reads the lease store. ports contains the bridge ports of running pods. If there is no
// store, leases returns no error: after a boot, no store exists until the first pod is attached.
func (a *Agent) leases(ports map[string]setup.FoundPort) (l leases, err error) {
	dir, ok := a.base.LeaseDir()
	if !ok {
		return l, nil
	}
	store, err := ipam.OpenExisting(dir, lockWait)
	if errors.Is(err, fs.ErrNotExist) {
		return leases{known: true}, nil
	}
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if l.usage, err = store.Usage(a.base.Name()); err != nil {
		return l, err
	}
	all, err := store.Leases(a.base.Name())
	for _, lease := range all {
		if _, plugged := ports[setup.Attachment(lease.Attachment).Port()]; !plugged {
			continue // the pod has ended without a DEL so far, or the address is reserved for the name of the pod
		}
		if lease.Address.IsSingleIP() {
			continue // the lease was taken over from host-local, so its subnet is unknown
		}
		if !slices.ContainsFunc(l.subnets, func(s attachment.Address) bool { return s.Masked() == lease.Address.Masked() }) {
			l.subnets = append(l.subnets, attachment.Address{Prefix: lease.Address, Gateway: lease.Gateway})
		}
	}
	l.known = err == nil
	return l, err
}

// checkFree adds a warning and an Event for each range that has no free address.
func checkFree(ranges []netip.Prefix, l leases, r *result) {
	for _, u := range l.usage {
		if u.Leased < u.Size || !slices.ContainsFunc(ranges, func(own netip.Prefix) bool { return own.Contains(u.First) }) {
			continue
		}
		text := fmt.Sprintf("range %v: all addresses are leased (%d), so a new pod starts only if its ADD can end a lease; look for leases of pods that are gone with \"bvctl leases\", or give the nodes larger ranges", u.Interval, u.Size)
		r.warn(text)
		r.tell(rangeExhausted, text)
	}
}
