package ipam

import (
	bolt "go.etcd.io/bbolt"
)

// Usage says how full a range is.
type Usage struct {
	Span
	Size   uint64 // addresses that it hands out, at most math.MaxUint64
	Leased uint64 // with those that are kept for a name
}

// Networks lists the networks that the store knows.
func (s *Store) Networks() (names []string, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		return tx.Bucket(networksBucket).ForEachBucket(func(name []byte) error {
			names = append(names, string(name))
			return nil
		})
	})
	return names, err
}

// Leases lists those of a network, by address.
func (s *Store) Leases(name string) (leases []Lease, err error) {
	err = s.reading(name, func(n *network) error {
		return n.within(lowest, highest, func(l Lease) bool {
			leases = append(leases, l)
			return true
		})
	})
	return leases, err
}

// Usage lists how full the ranges of a network are from which addresses were handed
// out, by address. Addresses that are handed out on request are in none.
func (s *Store) Usage(name string) (list []Usage, err error) {
	err = s.reading(name, func(n *network) error {
		return n.pools.ForEach(func(key, record []byte) error {
			p, err := decodePool(key, record)
			if err != nil {
				return err
			}
			r := Range{Start: p.start, End: p.end, Gateway: p.gateway}
			list = append(list, Usage{Span{p.start, p.end}, r.Size(), p.leased})
			return nil
		})
	})
	return list, err
}
