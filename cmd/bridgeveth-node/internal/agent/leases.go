package agent

import (
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// lockWait is how long to wait for plugins that have locked the lease store.
const lockWait = 5 * time.Second

// leases is what the lease store has of the pods' network.
type leases struct {
	subnets []attachment.Address // a leased address of each subnet
}

// leases reads the lease store. There is none before the first pod since the boot.
func (a *Agent) leases() (l leases, err error) {
	dir, ok := a.base.LeaseDir()
	if !ok {
		return l, nil
	}
	store, err := ipam.OpenExisting(dir, lockWait)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	all, err := store.Leases(a.base.Name())
	for _, lease := range all {
		if lease.Address.IsSingleIP() {
			continue // taken over from host-local, so its subnet is not known
		}
		if !slices.ContainsFunc(l.subnets, func(s attachment.Address) bool { return s.Masked() == lease.Address.Masked() }) {
			l.subnets = append(l.subnets, attachment.Address{Prefix: lease.Address, Gateway: lease.Gateway})
		}
	}
	return l, err
}
