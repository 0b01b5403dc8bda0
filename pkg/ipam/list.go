package ipam

import (
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
)

// Usage says how many addresses of a range are leased.
type Usage struct {
	Interval
	Size   uint64 // number of addresses that the range gives out, at most math.MaxUint64
	Leased uint64 // number of leased addresses, including those that are kept for a name
}

// Networks returns the names of the networks in the store.
func (s *Store) Networks() (names []string, err error) {
	err = s.named(s.file.View(func(tx *boltfile.Tx) error {
		names, err = records.Names(tx)
		return err
	}))
	return names, err
}

// Leases returns the leases of a network, sorted by address.
func (s *Store) Leases(network string) (list []Lease, err error) {
	err = s.view(network, func(n *records.Network) error {
		return n.EachLease(records.Lowest, records.Highest, func(l Lease) bool {
			list = append(list, l)
			return true
		})
	})
	return list, err
}

// Held returns the leases of an attachment, in the order of the sets in its request.
func (s *Store) Held(a Attachment) (held []Lease, err error) {
	err = s.view(a.Network, func(n *records.Network) error {
		held, err = n.Held(a)
		return err
	})
	return held, err
}

// Usage returns how many addresses of each range are leased, sorted by address. It does not list a
// range before the network has given out an address of the range. It never lists a range of static
// addresses, which are given out only if an attachment requests them.
func (s *Store) Usage(network string) (list []Usage, err error) {
	err = s.view(network, func(n *records.Network) error {
		return n.EachPool(func(p *records.Pool) {
			list = append(list, Usage{Interval{First: p.Start, Last: p.End}, p.Range().Size(), p.Leased})
		})
	})
	return list, err
}
