package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

var (
	// ErrExhausted says that every address of a set is leased.
	ErrExhausted = errors.New("no address is left")
	// ErrTaken says that a requested address is leased to somebody else.
	ErrTaken = errors.New("is leased already")
	// ErrNotServed says that a requested address is not handed out.
	ErrNotServed = errors.New("cannot be had")
)

// refused says whether an error is about the request, the store being sound.
func refused(err error) bool {
	for _, refusal := range []error{ErrExhausted, ErrTaken, ErrNotServed, ErrShared} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// Request asks for one address of each set.
type Request struct {
	Attachment
	Namespace Namespace
	Sets      []Set        // of ranges that are complete and do not overlap
	Addresses []netip.Addr // those wanted: at most one of each set, any where there is none
	Sticky    Sticky
	Memory    string // the folder that keeps sticky addresses for the next boot; needed if Sticky is not zero
	// Alive is asked of leases when a set is used up, and of those that have a
	// wanted address. Those that are not alive are taken back. Without it, all are.
	Alive func(Lease) bool
}

// Reserve returns a lease for each set, in their order: of the address that is
// wanted, or that the attachment has already, or that its name had, or of another.
// What else the attachment has is freed. Either all of that happens or nothing.
// Freed addresses rest as long as possible: those never used come first, then those
// freed longest ago. The cost does not depend on the number of leases as long as an
// address is left. The error may be ErrExhausted, ErrTaken, ErrNotServed or
// ErrShared, with nothing changed.
func (s *Store) Reserve(r Request) (leases []Lease, err error) {
	wanted, err := r.wanted()
	if err != nil {
		return nil, err
	}
	err = s.reserving(r.Network, func(n *network) error {
		if err := s.spare(n.tx.Size()); err != nil {
			return err
		}
		if leases, err = n.reserve(r, wanted); err != nil {
			return err
		}
		return n.tellMemories()
	})
	if err != nil {
		return nil, err
	}
	return leases, nil
}

// Room returns the range of each set in which Reserve would find an address for another
// attachment. Unlike Reserve it changes nothing. The error may be ErrExhausted or
// ErrShared.
func (s *Store) Room(r Request) (from []Range, err error) {
	err = s.trying(r.Network, func(n *network) error {
		for _, set := range r.Sets {
			free, err := n.room(set, r)
			if err != nil {
				return err
			}
			from = append(from, free)
		}
		return nil
	})
	return from, err
}

// Release frees what an attachment holds, or keeps it for its name; holding nothing
// is no error.
func (s *Store) Release(a Attachment) error {
	return s.changing(a.Network, func(n *network) error { return n.release(a) })
}

// Retain is Release for a network's attachments that are not in valid: all of
// them or, after an error, none.
func (s *Store) Retain(name string, valid []Attachment) error {
	keep := map[string]bool{}
	for _, a := range valid {
		keep[string(a.key())] = true
	}
	return s.changing(name, func(n *network) error {
		var stale []Attachment
		err := n.each(func(a Attachment) {
			if !keep[string(a.key())] {
				stale = append(stale, a)
			}
		})
		if err != nil {
			return err
		}
		return n.release(stale...)
	})
}

// Free ends a lease that Leases has listed, with all that its attachment holds, and
// keeps nothing for its name. A lease that is another one by now is left alone.
func (s *Store) Free(l Lease) error {
	return s.changing(l.Network, func(n *network) error {
		now, leased, err := n.lease(l.Address.Addr())
		if err != nil || !leased || now.Attachment != l.Attachment {
			return err
		}
		all := []Lease{now}
		if now.Until.IsZero() {
			if all, err = n.held(now.Attachment); err != nil {
				return err
			}
			if err := n.release(now.Attachment); err != nil {
				return err
			}
		}
		for _, l := range all {
			if now, leased, err = n.lease(l.Address.Addr()); err == nil && leased && !now.Until.IsZero() {
				err = n.forget(now)
			}
			if err != nil {
				return err
			}
		}
		return n.tellMemories()
	})
}

// Held lists what an attachment holds, in the order of the sets it was asked of.
func (s *Store) Held(a Attachment) (leases []Lease, err error) {
	err = s.reading(a.Network, func(n *network) error {
		leases, err = n.held(a)
		return err
	})
	return leases, err
}

// wanted sorts the wanted addresses by set; the zero address is any.
func (r Request) wanted() ([]netip.Addr, error) {
	wanted := make([]netip.Addr, len(r.Sets))
	for _, a := range r.Addresses {
		i := slices.IndexFunc(r.Sets, func(s Set) bool { return s.Serves(a) })
		if i < 0 {
			return nil, fmt.Errorf("%s %w: %s", a, ErrNotServed, r.whyNot(a))
		}
		if wanted[i].IsValid() {
			return nil, fmt.Errorf("%s %w: %s is of the same set, which gives one address", a, ErrNotServed, wanted[i])
		}
		wanted[i] = a
	}
	return wanted, nil
}

// whyNot says why no set hands out an address.
func (r Request) whyNot(a netip.Addr) string {
	var all []string
	for _, set := range r.Sets {
		for _, from := range set {
			if from.Gateway == a {
				return "it is the gateway's"
			}
			all = append(all, from.String())
		}
	}
	return "it is in none of the ranges, which are " + strings.Join(all, ", ")
}

// reserve is Reserve within a transaction.
func (n *network) reserve(r Request, wanted []netip.Addr) ([]Lease, error) {
	now := time.Now().Round(0)
	if err := n.expire(now); err != nil {
		return nil, err
	}
	if err := n.recallOnce(r.Memory, r.Sticky, now); err != nil {
		return nil, err
	}
	held, err := n.held(r.Attachment)
	if err != nil {
		return nil, err
	}
	leases := make([]Lease, len(r.Sets))
	for i, set := range r.Sets {
		var a netip.Addr
		since := now
		old := slices.IndexFunc(held, func(l Lease) bool {
			return set.Serves(l.Address.Addr()) && (!wanted[i].IsValid() || wanted[i] == l.Address.Addr())
		})
		if old >= 0 {
			a, since = held[old].Address.Addr(), held[old].Time
			held = slices.Delete(held, old, old+1)
		} else if a, err = n.find(set, wanted[i], r); err != nil {
			return nil, err
		}
		from := set.from(a)
		leases[i] = Lease{r.Attachment, netip.PrefixFrom(a, from.Subnet.Bits()), from.Gateway, r.Namespace, since, r.Sticky, time.Time{}}
		if err := n.put(leases[i]); err != nil {
			return nil, err
		}
	}
	for _, l := range held {
		if err := n.free(l.Address.Addr()); err != nil {
			return nil, err
		}
	}
	if err := n.hold(r.Attachment, leases); err != nil {
		return nil, err
	}
	return leases, n.remember(r, leases)
}

// find takes an address of a set: the one that is wanted, that the name of r had,
// or any that is free. For that it ends what is kept for others and, if need be,
// frees what dead attachments hold.
func (n *network) find(set Set, wanted netip.Addr, r Request) (netip.Addr, error) {
	if wanted.IsValid() {
		holder, err := n.claim(set, wanted, r)
		if err == nil && holder != nil {
			err = fmt.Errorf("%s %w: %s", wanted, ErrTaken, holder.describe())
		}
		return wanted, err
	}
	if a, err := n.recall(set, r); err != nil || a.IsValid() {
		return a, err
	}
	for _, makeRoom := range []func(Set, Request) error{n.breakPromise, n.reclaim, n.breakPromise} {
		if a, err := n.take(set); err != nil || a.IsValid() {
			return a, err
		}
		if err := makeRoom(set, r); err != nil {
			return netip.Addr{}, err
		}
	}
	a, err := n.take(set)
	if err == nil && !a.IsValid() {
		err = n.exhausted(set)
	}
	return a, err
}

// claim takes one address of a set, from those who keep it or are dead. If somebody
// alive has it, it returns that lease instead.
func (n *network) claim(set Set, a netip.Addr, r Request) (holder *Lease, err error) {
	from := set.from(a)
	if from.OnRequest {
		err = n.checkShared(from)
	} else {
		_, err = n.pool(from) // which counts the address
	}
	if err != nil {
		return nil, err
	}
	l, leased, err := n.lease(a)
	if err == nil && leased && l.Until.IsZero() {
		if r.Alive == nil || r.Alive(l) {
			return &l, nil
		}
		if err = n.release(l.Attachment); err == nil {
			l, leased, err = n.lease(a)
		}
	}
	if err == nil && leased {
		if l.Sticky.Name == r.Sticky.Name && l.Interface == r.Interface {
			err = n.unkeep(l)
		} else {
			err = n.forget(l)
		}
	}
	if err != nil {
		return nil, err
	}
	if from.OnRequest {
		return nil, n.occupyAny(a)
	}
	p, err := n.pool(from) // as it is now
	if err != nil {
		return nil, err
	}
	return nil, n.occupy(p, a)
}

// room returns the range of a set that has a free address, or would after taking back.
func (n *network) room(set Set, r Request) (Range, error) {
	for _, from := range set {
		if from.OnRequest {
			continue
		}
		if leased, err := n.leased(from); err != nil || leased < from.Size() {
			return from, errors.Join(err, n.shared(set))
		}
	}
	kept, found, err := n.firstKept(set)
	if err == nil && found {
		return set.from(kept.Address.Addr()), nil
	}
	var dead []Attachment
	if err == nil {
		dead, err = n.dead(set, r, true)
	}
	if err == nil && len(dead) == 0 {
		err = n.exhausted(set)
	}
	return set[0], err
}

// shared is ErrShared when another network has leases of the ranges that a set hands out
// without a request.
func (n *network) shared(set Set) error {
	for _, r := range set {
		if r.OnRequest {
			continue
		}
		if err := n.checkShared(r); err != nil {
			return err
		}
	}
	return nil
}

// reclaim frees what dead attachments hold in a set.
func (n *network) reclaim(set Set, r Request) error {
	dead, err := n.dead(set, r, false)
	if err != nil {
		return err
	}
	return n.release(dead...)
}

// dead lists the attachments with a lease in a set that are not alive, or just the
// first. The one that asks has none there, or it would need no other.
func (n *network) dead(set Set, r Request, one bool) (dead []Attachment, err error) {
	if r.Alive == nil {
		return nil, nil
	}
	for _, from := range set {
		err := n.within(from.Start, from.End, func(l Lease) bool {
			if !from.OnRequest && from.Contains(l.Address.Addr()) && l.Until.IsZero() && !r.Alive(l) {
				dead = append(dead, l.Attachment)
			}
			return !one || len(dead) == 0
		})
		if err != nil {
			return nil, err
		}
	}
	return dead, nil
}

// exhausted says how full a set is.
func (n *network) exhausted(set Set) error {
	var parts []string
	for _, r := range set {
		if r.OnRequest {
			continue
		}
		leased, err := n.leased(r)
		if err != nil {
			return err
		}
		parts = append(parts, fmt.Sprintf("%s (%d of %d leased)", r, leased, r.Size()))
	}
	return fmt.Errorf("network %s: %w in %s", n.name, ErrExhausted, strings.Join(parts, ", "))
}
