package allocator

import (
	"net/netip"
	"slices"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/leases"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/ranges"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
)

// Allocator chooses the addresses of one network.
type Allocator struct {
	Network *records.Network
	// MaxQueued limits the number of freed addresses in the free queue of a set. At this number,
	// the address that was freed longest ago is given out first, before addresses that were never
	// given out.
	MaxQueued uint64
}

// DefaultMaxQueued is the value of Allocator.MaxQueued in a Store. A queue of a million freed
// addresses takes about 60 MB in the store.
const DefaultMaxQueued = 1 << 20

// Reserve returns a lease for each set of a request, in the order of the sets. If the attachment
// already has an address of a set and requests no other address, it keeps this address. Reserve
// frees all other addresses of the attachment.
func (a Allocator) Reserve(r Request, now time.Time) ([]leases.Lease, error) {
	requested, err := r.BySet()
	if err != nil {
		return nil, err
	}
	held, err := a.Network.Held(r.Attachment)
	if err != nil {
		return nil, err
	}
	given := make([]leases.Lease, len(r.Sets))
	for i, set := range r.Sets {
		var address netip.Addr
		since := now
		old := slices.IndexFunc(held, func(l leases.Lease) bool {
			return set.Serves(l.Address.Addr()) && (!requested[i].IsValid() || requested[i] == l.Address.Addr())
		})
		if old >= 0 {
			address, since = held[old].Address.Addr(), held[old].Time
			held = slices.Delete(held, old, old+1)
		} else if address, err = a.choose(set, requested[i], r); err != nil {
			return nil, err
		}
		given[i] = r.lease(set.RangeOf(address), address, since)
		if err := a.Network.PutLease(given[i]); err != nil {
			return nil, err
		}
	}
	for _, l := range held {
		if err := a.Network.Free(l.Address.Addr()); err != nil {
			return nil, err
		}
	}
	if err := a.Network.SetHeld(r.Attachment, given); err != nil {
		return nil, err
	}
	return given, a.Network.SetNameAddresses(r.Sticky.Name, r.Interface, given)
}

// lease returns a new lease of an address. The parameter from is the address's range.
func (r Request) lease(from ranges.Range, address netip.Addr, since time.Time) leases.Lease {
	return leases.Lease{
		Attachment: r.Attachment, Address: netip.PrefixFrom(address, from.Subnet.Bits()), Gateway: from.Gateway,
		Namespace: r.Namespace, Time: since, Sticky: r.Sticky,
	}
}

// Available returns a range for each set of a request. From this range, Reserve could give an
// address to an attachment that has none.
func (a Allocator) Available(r Request) (from []ranges.Range, err error) {
	for _, set := range r.Sets {
		free, err := a.available(set, r)
		if err != nil {
			return nil, err
		}
		from = append(from, free)
	}
	return from, nil
}
