package ipam

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/internal/shortsort"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/allocator"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/ranges"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
)

// OfflineTime is how long a host gives out addresses of its blocks after etcd was last heard. All
// hosts of a pool must use the same time: docs/pool.md.
const OfflineTime = 24 * time.Hour

// SinceBoot returns the time of the clock CLOCK_BOOTTIME, which also counts the time while the host
// is suspended.
func SinceBoot() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
	}
	return time.Duration(now.Nano()), nil
}

// SetBlocks records the blocks of a shared pool that this host owns, and the time at which the
// request was sent that etcd has last answered: a result of SinceBoot. Blocks that are not in the list
// are no longer given out. Their leases stay.
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

// EmptyBlocks returns those of the recorded blocks of which no address is leased or kept for a name.
func (s *Store) EmptyBlocks(network string) (empty []Block, err error) {
	err = s.named(s.file.View(func(tx *boltfile.Tx) error {
		_, list, _, err := records.Blocks(tx, network)
		if err != nil {
			return err
		}
		n, err := records.Open(tx, network)
		for _, b := range list {
			used := false
			if err == nil && n != nil {
				used, err = inUse(n, b)
			}
			if !used {
				empty = append(empty, b)
			}
		}
		return err
	}))
	return empty, err
}

// Room returns for how many more containers the recorded blocks have addresses. Each container needs
// an address of each set. Room does not check whether the host may use the blocks: see OfflineTime.
func (s *Store) Room(network string, sets []Set) (containers uint64, err error) {
	err = s.try(network, func(n *records.Network) error {
		_, list, _, err := n.Blocks()
		containers = math.MaxUint64
		for _, set := range sets {
			left := uint64(0)
			if err == nil {
				left, err = unleased(n, set, list)
			}
			containers = min(containers, left)
		}
		return err
	})
	return containers, err
}

// unleased returns how many addresses of a set and of blocks have no lease, at most math.MaxUint64.
// Static addresses do not count.
func unleased(n *records.Network, set Set, list []Block) (left uint64, err error) {
	within, err := fullestFirst(n, set, list)
	for _, r := range within {
		if r.OnRequest {
			continue
		}
		leased, err := n.Leased(r)
		if err != nil {
			return 0, err
		}
		left += min(r.Size()-leased, math.MaxUint64-left)
	}
	return left, err
}

// inUse reports whether an address of a block is leased or kept for a name. The next Reserve frees an
// address whose keeping time has ended, but there may be no Reserve for long.
func inUse(n *records.Network, b Block) (used bool, err error) {
	err = n.EachLease(b.Subnet.Addr(), ranges.Last(b.Subnet), func(l Lease) bool {
		used = !keptTooLong(l)
		return !used
	})
	return used, err
}

// DropBlock removes a block from the blocks of a network if no address of the block is leased or
// kept for a name. It reports whether the block was removed. It removes no block of a network that is
// new to the store: the addresses of containers that are attached already are taken over only by the
// first Reserve.
func (s *Store) DropBlock(network string, b Block) (dropped bool, err error) {
	err = s.named(s.file.Update(func(tx *boltfile.Tx) error {
		return withExisting(tx, network, func(n *records.Network) error {
			_, list, _, err := n.Blocks()
			if err != nil || !slices.Contains(list, b) {
				return err
			}
			used, err := inUse(n, b)
			if err != nil || used {
				return err
			}
			dropped = true
			return records.DeleteBlock(tx, network, b)
		})
	}))
	return dropped && err == nil, err
}

// withinBlocks returns a request whose sets contain only addresses of the host's blocks, with the
// ranges of the fullest block first. It changes nothing if the request is not for a shared pool. The
// error may be ErrNoBlock, ErrUnheard or ErrNotServed.
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
	now, err := SinceBoot()
	if err != nil {
		return r, err
	}
	if age := now - heard; age > OfflineTime {
		return r, fmt.Errorf("network %s: %w for %s, and a host may use its blocks for %s", n.Name, allocator.ErrUnheard, age.Truncate(time.Minute), OfflineTime)
	}
	return narrowed(n, r, list)
}

// narrowed does the work of withinBlocks with the blocks that the host owns.
func narrowed(n *records.Network, r Request, list []Block) (Request, error) {
	requested, err := r.BySet()
	if err != nil {
		return r, err
	}
	var sets []Set
	var outside []netip.Addr
	var missing error
	for i, set := range r.Sets {
		within, err := fullestFirst(n, set, list)
		if err != nil {
			return r, err
		}
		wanted := requested[i]
		if !wanted.IsValid() {
			if wanted, err = stickyAddress(n, r, set, within); err != nil {
				return r, err
			}
		}
		dynamic := slices.ContainsFunc(within, func(from Range) bool { return !from.OnRequest })
		switch {
		case wanted.IsValid() && !within.Serves(wanted):
			outside = append(outside, wanted)
		case !dynamic && !requested[i].IsValid():
			missing = fmt.Errorf("network %s: %w in %s", n.Name, allocator.ErrNoBlock, set[0])
		}
		sets = append(sets, within)
	}
	if len(outside) > 0 {
		return r, &OutsideError{Network: n.Name, Addresses: outside}
	}
	r.Sets = sets
	return r, missing
}

// stickyAddress returns the address of a set that the name in the request (such as a pod's) had
// before. It returns the zero address if another address will do: the name had none, or the
// attachment has an address already, or the request accepts any address. within is the part of the set
// in the host's blocks.
func stickyAddress(n *records.Network, r Request, set, within Set) (wanted netip.Addr, err error) {
	if r.AcceptOther || r.Sticky.Name == "" {
		return wanted, nil
	}
	held, err := n.Held(r.Attachment)
	if err != nil || slices.ContainsFunc(held, func(l Lease) bool { return within.Serves(l.Address.Addr()) }) {
		return wanted, err
	}
	list, err := n.NameAddresses(r.Sticky.Name, r.Interface)
	for _, a := range list {
		if within.Serves(a) || !wanted.IsValid() && set.Serves(a) {
			wanted = a
		}
	}
	return wanted, err
}

// fullestFirst returns the parts of a set that are in blocks. The parts of the block with the most
// leases come first.
func fullestFirst(n *records.Network, set Set, list []Block) (within Set, err error) {
	type part struct {
		within Set
		leased uint64
	}
	var parts []part
	for _, b := range list {
		var p part
		for _, from := range set {
			p.within = append(p.within, from.Within(b.Subnet)...)
		}
		for _, r := range p.within {
			leased, err := n.Leased(r)
			if err != nil {
				return nil, err
			}
			p.leased += leased
		}
		parts = append(parts, p)
	}
	shortsort.Stable(parts, func(a, b part) bool { return a.leased > b.leased })
	for _, p := range parts {
		within = append(within, p.within...)
	}
	return within, nil
}
