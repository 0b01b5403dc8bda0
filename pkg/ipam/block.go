package ipam

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/allocator"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/ranges"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
)

// OfflineTime is how long a host gives out addresses of its blocks after etcd was last heard. All
// hosts of a pool must use the same time: docs/pool.md.
const OfflineTime = 24 * time.Hour

// SetBlocks records the blocks of a shared pool that this host owns, and the time at which the
// request was sent that etcd has last answered: the time since the boot by the clock
// CLOCK_BOOTTIME. Blocks that are not in the list are no longer given out. Their leases stay.
func (s *Store) SetBlocks(network string, heard time.Duration, list []Block) error {
	return s.named(s.file.Update(func(tx *boltfile.Tx) error { return records.PutBlocks(tx, network, heard, list) }))
}

// Blocks returns the blocks that the last SetBlocks since the boot has recorded, without those that
// were dropped, and the time heard. The result known is false if there was no SetBlocks.
func (s *Store) Blocks(network string) (heard time.Duration, list []Block, known bool, err error) {
	err = s.named(s.file.View(func(tx *boltfile.Tx) (err error) {
		heard, list, known, err = records.Blocks(tx, network)
		return err
	}))
	return heard, list, known, err
}

// DropBlock removes a block from the blocks of a network if no address of the block is leased or
// kept for a name. It reports whether the block was removed.
func (s *Store) DropBlock(network string, b Block) (dropped bool, err error) {
	err = s.named(s.file.Update(func(tx *boltfile.Tx) error {
		_, list, _, err := records.Blocks(tx, network)
		if err != nil || !slices.Contains(list, b) {
			return err
		}
		inUse := false
		err = withExisting(tx, network, func(n *records.Network) error {
			return n.EachLease(b.Subnet.Addr(), ranges.Last(b.Subnet), func(Lease) bool {
				inUse = true
				return false
			})
		})
		if err != nil || inUse {
			return err
		}
		dropped = true
		return records.DeleteBlock(tx, network, b)
	}))
	return dropped && err == nil, err
}

// withinBlocks returns a request whose sets contain only addresses of the host's blocks. It changes
// nothing if the request is not for a shared pool. The error may be ErrNoBlock or ErrUnheard.
func withinBlocks(n *records.Network, r Request) (Request, error) {
	if !r.Pool {
		return r, nil
	}
	heard, list, known, err := n.Blocks()
	if err != nil {
		return r, err
	}
	if !known {
		return r, fmt.Errorf("network %s: %w since the boot", n.Name, allocator.ErrUnheard)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return r, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
	}
	if age := time.Duration(now.Nano()) - heard; age > OfflineTime {
		return r, fmt.Errorf("network %s: %w for %s, and a host may use its blocks for %s", n.Name, allocator.ErrUnheard, age.Truncate(time.Minute), OfflineTime)
	}
	var sets []Set
	for _, set := range r.Sets {
		var within Set
		for _, from := range set {
			for _, b := range list {
				within = append(within, from.Within(b.Subnet)...)
			}
		}
		if len(within) == 0 {
			return r, fmt.Errorf("network %s: %w in %s", n.Name, allocator.ErrNoBlock, set[0])
		}
		sets = append(sets, within)
	}
	r.Sets = sets
	return r, nil
}
