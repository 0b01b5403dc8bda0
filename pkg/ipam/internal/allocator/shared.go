package allocator

import (
	"fmt"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/leases"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/ranges"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
)

// checkShared returns ErrShared when another network has leases in a range. A pool of another
// network without leases is no obstacle, and addresses that another network keeps for names
// are freed.
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

// checkSetShared is checkShared for the ranges of a set that are given out without a request.
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

// endKeptWithin frees the addresses that a network keeps for names in a range, and in pools
// that overlap the range. A name gets its address again if it is free at the next request with
// this name.
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

// leasedWithin says which addresses of a range a network has leased: the leases of a pool that
// overlaps the range, or an address that was given out on request. "" is none.
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
