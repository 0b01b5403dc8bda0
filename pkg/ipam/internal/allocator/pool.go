package allocator

import (
	"net/netip"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/ranges"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
)

// takeFree takes a free address of a set, or returns the zero address if no address is free. In a
// shared pool, it takes the address from the first range that has one: the set begins with the
// fullest block, and the emptier blocks can be given back one day.
func (a Allocator) takeFree(set ranges.Set, r Request) (address netip.Addr, err error) {
	if !r.Pool {
		return a.takeFreeOf(set)
	}
	for one := range slices.Chunk(set, 1) {
		if address, err = a.takeFreeOf(one); err != nil || address.IsValid() {
			break
		}
	}
	return address, err
}

// takeFreeOf takes a free address of ranges. It prefers the first address that was never given out,
// and then the address that was freed longest ago. If the free queues of the ranges have MaxQueued
// addresses or more, the address that was freed longest ago comes first. takeFreeOf returns the
// zero address if no address is free.
func (a Allocator) takeFreeOf(set ranges.Set) (netip.Addr, error) {
	var pools []*records.Pool
	queued := uint64(0)
	for _, r := range set {
		if r.OnRequest {
			continue
		}
		p, err := a.pool(r)
		if err != nil {
			return netip.Addr{}, err
		}
		pools = append(pools, p)
		queued += p.Queued
	}
	choices := []func([]*records.Pool) (*records.Pool, netip.Addr, error){a.firstUnused, a.freedLongestAgo}
	if queued >= a.MaxQueued {
		slices.Reverse(choices)
	}
	for _, choice := range choices {
		p, address, err := choice(pools)
		if err != nil {
			return address, err
		}
		if p != nil {
			return address, a.Network.Occupy(p, address)
		}
	}
	return netip.Addr{}, nil
}

// firstUnused returns the first address in the pools that was never given out, and the pool of this
// address. The pool is nil if there is no such address. The search in a pool begins at the field
// Unused. Some addresses after Unused may have been given out: on request, or before the pool was
// made. firstUnused moves Unused beyond such addresses, so that later calls do not check them
// again.
func (a Allocator) firstUnused(pools []*records.Pool) (*records.Pool, netip.Addr, error) {
	for _, p := range pools {
		if !p.Unused.IsValid() {
			continue
		}
		for p.Unused.IsValid() && (p.Unused == p.Gateway || a.Network.HasRecord(p.Unused)) {
			p.Advance()
		}
		if p.Unused.IsValid() {
			return p, p.Unused, nil
		}
		if err := a.Network.SavePool(p); err != nil {
			return nil, netip.Addr{}, err
		}
	}
	return nil, netip.Addr{}, nil
}

// freedLongestAgo returns the address in the pools' free queues that was freed longest ago, and the
// pool of this address. The pool is nil if all queues are empty.
func (a Allocator) freedLongestAgo(pools []*records.Pool) (from *records.Pool, address netip.Addr, err error) {
	var first records.Position
	for _, p := range pools {
		head, found, err := a.Network.QueueHead(p)
		if err != nil {
			return nil, address, err
		}
		if found && (from == nil || head.Number < first.Number) {
			from, first = p, head
		}
	}
	return from, first.Address, nil
}

// pool returns the pool of a range, and makes a pool if the range has none. A pool without leases
// does not reserve its range, so another network may use the range by now. The error is then
// ErrShared.
func (a Allocator) pool(r ranges.Range) (*records.Pool, error) {
	p, err := a.Network.PoolAt(r.End)
	switch {
	case err != nil:
		return nil, err
	case !p.Serves(r):
		return a.newPool(r)
	case p.Leased == 0:
		return p, a.checkShared(r)
	}
	return p, nil
}

// newPool makes the pool of a range that is new in the configuration. It drops the pools that
// overlap the range, because they belong to an earlier configuration. The leases in these pools
// stay, but the order in which addresses were freed is lost. A pool may also be missing because the
// file is damaged. Therefore newPool checks the leases of all attachments.
func (a Allocator) newPool(r ranges.Range) (*records.Pool, error) {
	if err := a.checkShared(r); err != nil {
		return nil, err
	}
	if err := a.Network.CheckAttachments(); err != nil {
		return nil, err
	}
	old, err := a.Network.Overlapping(r)
	if err != nil {
		return nil, err
	}
	for _, p := range old {
		if err := a.Network.DropPool(p); err != nil {
			return nil, err
		}
	}
	leased, err := a.Network.Leased(r)
	if err != nil {
		return nil, err
	}
	p := &records.Pool{Start: r.Start, End: r.End, Gateway: r.Gateway, Unused: r.Start, Leased: leased}
	return p, a.Network.SavePool(p)
}
