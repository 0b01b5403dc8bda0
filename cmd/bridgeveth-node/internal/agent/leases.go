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

// lockWait is how long to wait for plugins that have locked the lease store.
const lockWait = 5 * time.Second

// leases is what the lease store has of the pods' network.
type leases struct {
	known   bool                 // ipam-simple leases the addresses, and its store could be read
	usage   []ipam.Usage         // how full each range is
	subnets []attachment.Address // an address of each subnet that running pods are in
}

// leases reads the lease store. There is none before the first pod since the boot. ports are those of running
// pods.
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
			continue // the pod has ended, and DEL has not come yet, or the address is kept for its name
		}
		if lease.Address.IsSingleIP() {
			continue // taken over from host-local, so its subnet is not known
		}
		if !slices.ContainsFunc(l.subnets, func(s attachment.Address) bool { return s.Masked() == lease.Address.Masked() }) {
			l.subnets = append(l.subnets, attachment.Address{Prefix: lease.Address, Gateway: lease.Gateway})
		}
	}
	l.known = err == nil
	return l, err
}

// checkFree names the ranges that have no free address.
func checkFree(ranges []netip.Prefix, l leases, r *result) {
	for _, u := range l.usage {
		if u.Leased < u.Size || !slices.ContainsFunc(ranges, func(own netip.Prefix) bool { return own.Contains(u.First) }) {
			continue
		}
		text := fmt.Sprintf("range %v: all addresses are leased (%d), so new pods do not start; look for leases of pods that are gone with \"bvctl leases\", or give the nodes larger ranges", u.Interval, u.Size)
		r.warn(text)
		r.tell(rangeExhausted, text)
	}
}
