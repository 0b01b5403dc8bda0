package allocator

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/leases"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/ranges"
)

// choose takes an address of a set. The order of preference is:
//
//  1. the requested address, if there is one;
//  2. the address that the name in the request (such as a pod's) had before;
//  3. any free address.
//
// If no address is free, choose ends one kept lease: a lease that keeps an address for a name and
// belongs to no attachment. If there are several kept leases, choose ends the lease whose keeping
// time ends first. If there is no kept lease, choose ends the leases that are not in use.
func (a Allocator) choose(set ranges.Set, requested netip.Addr, r Request) (netip.Addr, error) {
	if requested.IsValid() {
		holder, err := a.claim(set, requested, r)
		if err == nil && holder != nil {
			err = fmt.Errorf("%s %w: to container %s, interface %s, since %s", requested, ErrTaken,
				holder.Container, holder.Interface, holder.Time.Format(time.RFC3339))
		}
		return requested, err
	}
	if address, err := a.chooseSticky(set, r); err != nil || address.IsValid() {
		return address, err
	}
	for _, makeRoom := range []func(ranges.Set, Request) error{a.endKept, a.reclaim, a.endKept} {
		if address, err := a.takeFree(set, r); err != nil || address.IsValid() {
			return address, err
		}
		if err := makeRoom(set, r); err != nil {
			return netip.Addr{}, err
		}
	}
	address, err := a.takeFree(set, r)
	if err == nil && !address.IsValid() {
		err = a.exhausted(set)
	}
	return address, err
}

// chooseSticky takes the address of a set that the name in the request (such as a pod's) had
// before. It returns the zero address if the name had no address, or if another attachment has this
// address now.
func (a Allocator) chooseSticky(set ranges.Set, r Request) (netip.Addr, error) {
	list, err := a.Network.NameAddresses(r.Sticky.Name, r.Interface)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, address := range list {
		if !set.Serves(address) {
			continue
		}
		if holder, err := a.claim(set, address, r); err != nil || holder == nil {
			return address, err
		}
	}
	return netip.Addr{}, nil
}

// claim takes a particular address of a set. It succeeds even if the address is kept for another
// pod's name, or has a lease that is not in use. If the address is in use, claim takes nothing and
// returns the lease of the address.
func (a Allocator) claim(set ranges.Set, address netip.Addr, r Request) (holder *leases.Lease, err error) {
	from := set.RangeOf(address)
	if from.OnRequest {
		err = a.checkShared(from)
	} else {
		_, err = a.pool(from) // makes a missing pool, so that the pool counts the address
	}
	if err != nil {
		return nil, err
	}
	l, leased, err := a.Network.Lease(address)
	if err == nil && leased && !l.Kept() {
		if r.inUse(l) {
			return &l, nil
		}
		if err = a.Network.Release(l.Attachment); err == nil {
			l, leased, err = a.Network.Lease(address)
		}
	}
	if err == nil && leased { // the address is kept for a name
		if l.Sticky.Name == r.Sticky.Name && l.Interface == r.Interface {
			err = a.Network.Unkeep(l)
		} else {
			err = a.Network.Forget(l)
		}
	}
	if err != nil {
		return nil, err
	}
	if from.OnRequest {
		return nil, a.Network.OccupyAny(address)
	}
	p, err := a.pool(from) // read the pool again, because freeing the address has changed its record
	if err != nil {
		return nil, err
	}
	return nil, a.Network.Occupy(p, address)
}
