package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// ErrExhausted says that every address of a set is leased.
var ErrExhausted = errors.New("no address is left")

// Attachment names one interface of one container on one network.
type Attachment struct{ Network, Container, Interface string }

// key is the attachment within its network. Neither part holds a zero byte.
func (a Attachment) key() []byte { return []byte(a.Container + "\x00" + a.Interface) }

// Namespace is a container's network namespace. Device and Inode are those of the
// file at Path (stat(2)), 0 where it could not be seen.
type Namespace struct {
	Path          string
	Device, Inode uint64
}

// NamespaceAt looks at the namespace at path now.
func NamespaceAt(path string) Namespace {
	n := Namespace{Path: path}
	if info, err := os.Stat(path); err == nil {
		st := info.Sys().(*syscall.Stat_t)
		n.Device, n.Inode = st.Dev, st.Ino
	}
	return n
}

// Gone says whether the namespace is no longer at its path, or another one is. One
// that could not be seen in the first place is not gone.
func (n Namespace) Gone() bool { return n.Inode != 0 && NamespaceAt(n.Path) != n }

// Lease says who has an address, since when.
type Lease struct {
	Attachment
	Address   netip.Prefix // with the length of its subnet
	Gateway   netip.Addr
	Namespace Namespace
	Time      time.Time
	Range     string // the key of the range that it came from
}

// Request asks for one address of each set.
type Request struct {
	Attachment
	Namespace Namespace
	Sets      []Set
	// Alive is asked of leases when a set is used up. Those that are not alive are
	// taken back.
	Alive func(Lease) bool
}

// Reserve returns a lease for each set, in their order: those that the attachment
// has already, if they fit, or new ones. Either all are given or none. Freed
// addresses rest as long as possible: those never used come first, then those
// freed longest ago. The cost does not depend on the number of leases.
func (s *Store) Reserve(r Request) (leases []Lease, err error) {
	err = s.update(r.Network, func(n network) error {
		if leases, err = n.held(r.Attachment); err != nil {
			return err
		}
		if fit(leases, r.Sets) {
			return n.moveTo(leases, r.Namespace)
		}
		if err := n.release(leases); err != nil {
			return err
		}
		leases = nil
		for i, set := range r.Sets {
			lease, err := n.reserve(set, r)
			if err != nil {
				return fmt.Errorf("set %d: %w", i, err)
			}
			leases = append(leases, lease)
		}
		return n.hold(r.Attachment, leases)
	})
	if err != nil {
		return nil, err
	}
	return leases, nil
}

// fit says whether there is one lease for each set, in order.
func fit(leases []Lease, sets []Set) bool {
	if len(leases) != len(sets) || len(leases) == 0 {
		return false
	}
	for i, l := range leases {
		if !sets[i].Serves(l.Address.Addr()) {
			return false
		}
	}
	return true
}

// moveTo records that leases are used in another namespace than before.
func (n network) moveTo(leases []Lease, ns Namespace) error {
	for i := range leases {
		if leases[i].Namespace == ns {
			continue
		}
		leases[i].Namespace = ns
		if err := n.put(leases[i]); err != nil {
			return err
		}
	}
	return nil
}

// reserve finds a free address in a set, if need be after it has taken back what
// dead attachments hold.
func (n network) reserve(set Set, r Request) (Lease, error) {
	for _, reclaim := range []bool{false, true} {
		if reclaim {
			if err := n.reclaim(r.Alive); err != nil {
				return Lease{}, err
			}
		}
		for _, from := range set {
			a, err := n.take(from)
			if err != nil {
				return Lease{}, err
			}
			if a.IsValid() {
				lease := Lease{
					Attachment: r.Attachment, Namespace: r.Namespace, Time: time.Now().Round(0),
					Address: netip.PrefixFrom(a, from.Subnet.Bits()), Gateway: from.Gateway, Range: from.String(),
				}
				return lease, n.put(lease)
			}
		}
	}
	return Lease{}, fmt.Errorf("network %s: %w in %s", r.Network, ErrExhausted, n.describe(set))
}

// reclaim takes back the leases that are not alive.
func (n network) reclaim(alive func(Lease) bool) error {
	if alive == nil {
		return nil
	}
	all, err := n.leases()
	if err != nil {
		return err
	}
	for _, l := range all {
		if alive(l) {
			continue
		}
		held, err := n.held(l.Attachment)
		if err == nil {
			err = n.release(held)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Release gives back what an attachment holds; holding nothing is no error.
func (s *Store) Release(a Attachment) error {
	return s.update(a.Network, func(n network) error {
		leases, err := n.held(a)
		if err != nil {
			return err
		}
		return n.release(leases)
	})
}

// Held lists what an attachment holds.
func (s *Store) Held(a Attachment) (leases []Lease, err error) {
	err = s.view(a.Network, func(n network) error {
		leases, err = n.held(a)
		return err
	})
	return leases, err
}

// Leases lists those of a network, by address.
func (s *Store) Leases(name string) (leases []Lease, err error) {
	err = s.view(name, func(n network) error {
		leases, err = n.leases()
		return err
	})
	return leases, err
}

// Retain gives back the leases of a network's attachments that are not in valid.
func (s *Store) Retain(name string, valid []Attachment) error {
	keep := map[string]bool{}
	for _, a := range valid {
		keep[string(a.key())] = true
	}
	return s.update(name, func(n network) error {
		return n.reclaim(func(l Lease) bool { return keep[string(l.key())] })
	})
}

// Free counts the addresses of a set that are left, up to math.MaxUint64. Those
// that a dead attachment holds count as taken.
func (s *Store) Free(name string, set Set) (free uint64, err error) {
	leased := make([]uint64, len(set))
	err = s.view(name, func(n network) error {
		for i, r := range set {
			leased[i] = n.count(r)
		}
		return nil
	})
	for i, r := range set {
		left := r.Size() - min(r.Size(), leased[i])
		free += min(left, math.MaxUint64-free)
	}
	return free, err
}

func decodeLease(b []byte) (l Lease, err error) {
	if err := json.Unmarshal(b, &l); err != nil {
		return l, fmt.Errorf("%w: a lease is unreadable: %w", ErrDamaged, err)
	}
	return l, nil
}
