package stock

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

const (
	// returnAfter is how long a block must be without a lease before Fill returns it. Containers that
	// come and go meanwhile cause no writes in etcd. Only a process that looks at the stock during
	// this time returns blocks: the service, but not "bridgeveth-pool claim".
	returnAfter = 10 * time.Minute
	// maxReturns is the greatest number of blocks that one Fill returns, so that it ends in time.
	maxReturns = 16
)

// look returns the blocks in the store that have no lease, and notes since when. A lease that
// appears and ends between two calls is not noticed.
func (s *Stock) look() (empty []ipam.Block, err error) {
	now, err := ipam.SinceBoot()
	if err == nil {
		err = s.withStore(func(store *ipam.Store) (err error) {
			empty, err = store.EmptyBlocks(s.Member.Network)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	since := map[ipam.Block]time.Duration{}
	for _, b := range empty {
		since[b] = now
		if before, seen := s.emptySince[b]; seen {
			since[b] = before
		}
	}
	s.emptySince = since
	return empty, nil
}

// giveBack returns blocks to etcd. The list contains the blocks of the host. giveBack returns the
// list without the returned blocks. The store takes each block out of use first. If the process is
// killed after this, or if etcd's answer is lost, the next Fill hears whether the host still owns
// the block.
func (s *Stock) giveBack(ctx context.Context, list []ipam.Block) ([]ipam.Block, error) {
	surplus, err := s.surplus()
	for _, b := range surplus {
		dropped := false
		if err == nil {
			err = s.withStore(func(store *ipam.Store) (err error) {
				dropped, err = store.DropBlock(s.Member.Network, b)
				return err
			})
		}
		if err == nil && dropped {
			list = slices.DeleteFunc(list, func(o ipam.Block) bool { return o == b })
			err = s.Member.Return(ctx, registry.Block{Prefix: b.Subnet, Revision: b.Revision})
		}
	}
	return list, err
}

// surplus returns blocks that are without a lease for returnAfter, the longest time first. They do
// not belong to the stock: Spare other blocks of each set have no lease either, or no set contains
// the block any more.
func (s *Stock) surplus() (list []ipam.Block, err error) {
	now, err := ipam.SinceBoot()
	if err != nil {
		return nil, err
	}
	empty, err := s.look()
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(empty, func(a, b ipam.Block) int { return cmp.Compare(s.emptySince[a], s.emptySince[b]) })
	for len(empty) > 0 && len(list) < maxReturns && now-s.emptySince[empty[0]] >= returnAfter {
		b := empty[0]
		needed := false
		for _, pool := range s.Pools {
			needed = needed || pool.Contains(b.Subnet) && count(pool, empty) <= s.Spare
		}
		if empty = empty[1:]; !needed {
			list = append(list, b)
		}
	}
	return list, nil
}
