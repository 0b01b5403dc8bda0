package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// ErrExhausted says that every address of a set is leased.
var ErrExhausted = errors.New("no address is left")

// Request asks for one address of each set.
type Request struct {
	Attachment
	Namespace Namespace
	Sets      []Set // of ranges that are complete and do not overlap
	// Alive is asked of leases when a set is used up. Those that are not alive are
	// taken back. Without it, all are.
	Alive func(Lease) bool
}

// Reserve returns a lease for each set, in their order: those that the attachment
// has already, if they fit, or new ones. What else it has is freed. Either all of
// that happens or nothing. Freed addresses rest as long as possible: those never
// used come first, then those freed longest ago. The cost does not depend on the
// number of leases as long as an address is left.
func (s *Store) Reserve(r Request) (leases []Lease, err error) {
	err = s.update(r.Network, func(n *network) error {
		leases, err = n.reserve(r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return leases, nil
}

// Room says whether Reserve would find an address in each set for another
// attachment. Unlike Reserve it changes nothing. It may be ErrExhausted.
func (s *Store) Room(r Request) error {
	return s.view(r.Network, func(n *network) error {
		for _, set := range r.Sets {
			room, err := n.room(set, r)
			if err != nil {
				return err
			}
			if !room {
				return n.exhausted(set)
			}
		}
		return nil
	})
}

// Release frees what an attachment holds; holding nothing is no error.
func (s *Store) Release(a Attachment) error {
	return s.update(a.Network, func(n *network) error { return n.release(a) })
}

// Retain frees the leases of a network's attachments that are not in valid: all of
// them or, after an error, none.
func (s *Store) Retain(name string, valid []Attachment) error {
	keep := map[string]bool{}
	for _, a := range valid {
		keep[string(a.key())] = true
	}
	return s.update(name, func(n *network) error {
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

// Held lists what an attachment holds, in the order of the sets it was asked of.
func (s *Store) Held(a Attachment) (leases []Lease, err error) {
	err = s.view(a.Network, func(n *network) error {
		leases, err = n.held(a)
		return err
	})
	return leases, err
}

// Leases lists those of a network, by address.
func (s *Store) Leases(name string) (leases []Lease, err error) {
	err = s.view(name, func(n *network) error {
		return n.within(lowest, highest, func(l Lease) bool {
			leases = append(leases, l)
			return true
		})
	})
	return leases, err
}

// reserve is Reserve within a transaction.
func (n *network) reserve(r Request) ([]Lease, error) {
	held, err := n.held(r.Attachment)
	if err != nil {
		return nil, err
	}
	leases := make([]Lease, len(r.Sets))
	for i, set := range r.Sets {
		var a netip.Addr
		since := time.Now().Round(0)
		old := slices.IndexFunc(held, func(l Lease) bool { return set.Serves(l.Address.Addr()) })
		if old >= 0 {
			a, since = held[old].Address.Addr(), held[old].Time
			held = slices.Delete(held, old, old+1)
		} else if a, err = n.find(set, r); err != nil {
			return nil, err
		}
		from := set[slices.IndexFunc(set, func(f Range) bool { return f.Contains(a) })]
		leases[i] = Lease{r.Attachment, netip.PrefixFrom(a, from.Subnet.Bits()), from.Gateway, r.Namespace, since}
		if err := n.put(leases[i]); err != nil {
			return nil, err
		}
	}
	for _, l := range held {
		if err := n.free(l.Address.Addr()); err != nil {
			return nil, err
		}
	}
	return leases, n.hold(r.Attachment, leases)
}

// find takes a free address of a set, if need be after it has freed what dead
// attachments hold there.
func (n *network) find(set Set, r Request) (netip.Addr, error) {
	if a, err := n.take(set); err != nil || a.IsValid() {
		return a, err
	}
	dead, err := n.dead(set, r, false)
	if err != nil {
		return netip.Addr{}, err
	}
	if err := n.release(dead...); err != nil {
		return netip.Addr{}, err
	}
	a, err := n.take(set)
	if err == nil && !a.IsValid() {
		err = n.exhausted(set)
	}
	return a, err
}

// room says whether a set has a free address, or would after taking back.
func (n *network) room(set Set, r Request) (bool, error) {
	for _, from := range set {
		if leased, err := n.leased(from); err != nil || leased < from.Size() {
			return true, err
		}
	}
	dead, err := n.dead(set, r, true)
	return len(dead) > 0, err
}

// dead lists the attachments with a lease in a set that are not alive, or just the
// first. The one that asks has none there, or it would need no other.
func (n *network) dead(set Set, r Request, one bool) (dead []Attachment, err error) {
	if r.Alive == nil {
		return nil, nil
	}
	for _, from := range set {
		err := n.within(from.Start, from.End, func(l Lease) bool {
			if from.Contains(l.Address.Addr()) && !r.Alive(l) {
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
		leased, err := n.leased(r)
		if err != nil {
			return err
		}
		parts = append(parts, fmt.Sprintf("%s (%d of %d leased)", r, leased, r.Size()))
	}
	return fmt.Errorf("network %s: %w in %s", n.name, ErrExhausted, strings.Join(parts, ", "))
}
