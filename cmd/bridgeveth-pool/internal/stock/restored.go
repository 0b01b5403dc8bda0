package stock

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// ErrLost means that this host has leases in a block of another host.
var ErrLost = errors.New("leases in the block: two containers can have the same address")

// claimLeased claims each block of which this host has leased addresses, although the list does not
// contain the block. Either etcd was restored from a backup, which does not contain the claim, or the
// leases are older than the pool. claimLeased returns all blocks of the host. The error lost is
// ErrLost, and names the blocks that other hosts own.
func (s *Stock) claimLeased(ctx context.Context, heard time.Duration, list []ipam.Block) (all []ipam.Block, lost, err error) {
	leased, err := s.leased()
	if err != nil {
		return list, nil, err
	}
	for _, b := range list {
		delete(leased, b.Subnet)
	}
	for subnet, count := range leased {
		b, err := s.Member.ClaimBlock(ctx, subnet)
		if errors.Is(err, registry.ErrTaken) {
			// without ErrTaken, which is about an address that the caller wants
			lost = errors.Join(lost, fmt.Errorf("%s, and this host has %d %w; delete the containers of one of the hosts that have addresses of the block", err.Error(), count, ErrLost))
			continue
		}
		if err == nil {
			list = append(list, ipam.Block{Subnet: b.Prefix, Revision: b.Revision})
			err = s.record(heard, list)
		}
		if err != nil {
			return list, lost, err
		}
	}
	return list, lost, nil
}

// stored returns the blocks in the store, and whether there is a list since the boot. It tells the member
// what the store knows about etcd.
func (s *Stock) stored() (list []ipam.Block, known bool, err error) {
	err = s.withStore(func(store *ipam.Store) (err error) {
		_, list, known, err = store.Blocks(s.Member.Network)
		return err
	})
	s.Member.HeardInBoot = known
	for _, b := range list {
		s.Member.Seen = max(s.Member.Seen, b.Revision)
	}
	return list, known, err
}

// leased returns the number of leases in each block of the pool.
func (s *Stock) leased() (count map[netip.Prefix]int, err error) {
	count = map[netip.Prefix]int{}
	err = s.withStore(func(store *ipam.Store) error {
		leases, err := store.Leases(s.Member.Network)
		for _, l := range leases {
			for _, pool := range s.Pools {
				if b, ok := pool.Of(l.Address.Addr()); ok {
					count[b]++
				}
			}
		}
		return err
	})
	return count, err
}

// returnAgain returns the blocks that are not in the list before and have no lease. This host has
// returned them since the backup, and another host may use them. The result is the other blocks.
func (s *Stock) returnAgain(ctx context.Context, list []registry.Block, before []ipam.Block) (kept []registry.Block, err error) {
	leased, err := s.leased()
	for _, b := range list {
		known := slices.ContainsFunc(before, func(o ipam.Block) bool { return o.Subnet == b.Prefix })
		switch {
		case known || leased[b.Prefix] > 0:
			kept = append(kept, b)
		case err == nil:
			err = s.Member.Return(ctx, b)
		}
	}
	return kept, err
}
