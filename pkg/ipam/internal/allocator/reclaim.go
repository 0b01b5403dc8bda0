package allocator

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/leases"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/ranges"
)

// maxExpired is the greatest number of kept addresses that one call of Expire frees. This keeps the
// call short.
const maxExpired = 16

// Expire frees kept addresses whose keeping time has ended.
func (a Allocator) Expire(now time.Time) error {
	var expired []leases.Lease
	err := a.Network.EachKept(func(l leases.Lease) bool {
		if l.Until.After(now) {
			return false
		}
		expired = append(expired, l)
		return len(expired) < maxExpired
	})
	for _, l := range expired {
		if err == nil {
			err = a.Network.Forget(l)
		}
	}
	return err
}

// endKept frees one kept address of a set: the address whose keeping time ends first. It does
// nothing if the set has no kept address.
func (a Allocator) endKept(set ranges.Set, _ Request) error {
	l, found, err := a.firstKept(set)
	if err != nil || !found {
		return err
	}
	return a.Network.Forget(l)
}

// firstKept returns one kept lease of a set: the lease whose keeping time ends first.
func (a Allocator) firstKept(set ranges.Set) (first leases.Lease, found bool, err error) {
	err = a.Network.EachKept(func(l leases.Lease) bool {
		first, found = l, set.Dynamic(l.Address.Addr())
		return !found
	})
	return first, found, err
}

// reclaim ends the leases of a set that are not in use. It also ends all other leases of the same
// attachments.
func (a Allocator) reclaim(set ranges.Set, r Request) error {
	unused, err := a.notInUse(set, r, false)
	if err != nil {
		return err
	}
	return a.Network.Release(unused...)
}

// notInUse returns the attachments whose lease in the set is not in use. If first is true, it
// returns at most one attachment.
func (a Allocator) notInUse(set ranges.Set, r Request, first bool) (unused []leases.Attachment, err error) {
	if r.InUse == nil {
		return nil, nil
	}
	for _, from := range set {
		err := a.Network.EachLease(from.Start, from.End, func(l leases.Lease) bool {
			if !from.OnRequest && from.Contains(l.Address.Addr()) && !l.Kept() && !r.InUse(l) {
				unused = append(unused, l.Attachment)
			}
			return !first || len(unused) == 0
		})
		if err != nil {
			return nil, err
		}
	}
	return unused, nil
}

// available returns a range of a set from which choose could take an address. The range has a free
// address, or a lease that choose could end. If there is no such range, the error is ErrExhausted.
func (a Allocator) available(set ranges.Set, r Request) (ranges.Range, error) {
	for _, from := range set {
		if from.OnRequest {
			continue
		}
		if leased, err := a.Network.Leased(from); err != nil || leased < from.Size() {
			return from, errors.Join(err, a.checkSetShared(set))
		}
	}
	kept, found, err := a.firstKept(set)
	if err == nil && found {
		return set.RangeOf(kept.Address.Addr()), nil
	}
	var unused []leases.Attachment
	if err == nil {
		unused, err = a.notInUse(set, r, true)
	}
	if err == nil && len(unused) == 0 {
		err = a.exhausted(set)
	}
	return set[0], err
}

// exhausted returns ErrExhausted with the number of leases in each range of the set.
func (a Allocator) exhausted(set ranges.Set) error {
	var full []string
	for _, r := range set {
		if r.OnRequest {
			continue
		}
		leased, err := a.Network.Leased(r)
		if err != nil {
			return err
		}
		full = append(full, fmt.Sprintf("%s (%d of %d leased)", r, leased, r.Size()))
	}
	return fmt.Errorf("network %s: %w in %s", a.Network.Name, ErrExhausted, strings.Join(full, ", "))
}
