package allocator

import (
	"fmt"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/leases"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/ranges"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
)

// checkShared returns ErrShared if another network has leases in a range. It ignores pools without
// leases. Kept addresses do not count, because no attachment has them. checkShared frees the kept
// addresses of other networks in the range.
func (a Allocator) checkShared(r ranges.Range) error {
	return a.Network.EachOther(func(other *records.Network) error {
		if err := endKeptWithin(other, r); err != nil {
			return err
		}
		leased, err := leasedWithin(other, r)
		if err != nil || leased == "" {
			return err
		}
		return fmt.Errorf("network %s: range %s %w: %s has leased %s", a.Network.Name, r, ErrShared, other.Name, leased)
	})
}

// checkSetShared calls checkShared for each range of a set. It skips the ranges of static
// addresses, which are given out only on request.
func (a Allocator) checkSetShared(set ranges.Set) error {
	for _, r := range set {
		if r.OnRequest {
			continue
		}
		if err := a.checkShared(r); err != nil {
			return err
		}
	}
	return nil
}

// endKeptWithin frees the addresses that the network n keeps for the names of pods, if they are in
// the range r or in a pool that overlaps r. See Network.Unkeep.
func endKeptWithin(n *records.Network, r ranges.Range) error {
	pools, err := n.Overlapping(r)
	if err != nil {
		return err
	}
	var kept []leases.Lease
	err = n.EachKept(func(l leases.Lease) bool {
		address := l.Address.Addr()
		if r.Contains(address) || slices.ContainsFunc(pools, func(p *records.Pool) bool { return p.Covers(address) }) {
			kept = append(kept, l)
		}
		return true
	})
	for _, l := range kept {
		if err == nil {
			err = n.Unkeep(l)
		}
	}
	return err
}

// leasedWithin returns a text about leases that the network n has in the range r. The text names a
// pool that overlaps r and has leases. If there is no such pool, the text names a leased address of
// r, which was given out on request. The text is "" if there are no leases.
func leasedWithin(n *records.Network, r ranges.Range) (leased string, err error) {
	pools, err := n.Overlapping(r)
	if err != nil {
		return "", err
	}
	for _, p := range pools {
		if p.Leased > 0 {
			return fmt.Sprintf("%d addresses of %s-%s", p.Leased, p.Start, p.End), nil
		}
	}
	err = n.EachLease(r.Start, r.End, func(l leases.Lease) bool {
		if r.Contains(l.Address.Addr()) {
			leased = l.Address.Addr().String()
		}
		return leased == ""
	})
	return leased, err
}
