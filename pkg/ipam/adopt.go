package ipam

import (
	"errors"
	"fmt"
	"slices"
)

// ErrShared says that a range belongs to another network of the store.
var ErrShared = errors.New("is in use by another network; give one of them another subnet, or a store of its own")

// adopt makes the pool of a range that is new in the configuration. The pools that
// it overlaps are those of its predecessors and go; their leases stay, and the
// order in which their addresses were freed is forgotten. Since a pool may also be
// new because the file is damaged, all leases are looked at.
func (n *network) adopt(r Range) (*pool, error) {
	if err := n.checkShared(r); err != nil {
		return nil, err
	}
	if err := n.checkHeld(); err != nil {
		return nil, err
	}
	if err := n.dropWithin(r); err != nil {
		return nil, err
	}
	leased, err := n.leased(r)
	if err != nil {
		return nil, err
	}
	p := &pool{start: r.Start, end: r.End, gateway: r.Gateway, unused: r.Start, leased: leased}
	return p, n.save(p)
}

// overlapping lists the pools that have an address of r.
func (n *network) overlapping(r Range) (pools []*pool, err error) {
	c := n.pools.Cursor()
	for k, record := c.Seek(addressKey(r.Start)); k != nil; k, record = c.Next() {
		p, err := decodePool(k, record)
		if err != nil {
			return nil, err
		}
		if !r.Overlaps(Range{Start: p.start, End: p.end}) {
			break
		}
		pools = append(pools, p)
	}
	return pools, nil
}

// checkShared refuses a range of which another network has leases. Pools of others
// that are empty are in nobody's way, and what they keep for names gives way.
func (n *network) checkShared(r Range) error {
	return n.tx.Bucket(networksBucket).ForEachBucket(func(name []byte) error {
		if string(name) == n.name {
			return nil
		}
		other, err := openNetwork(n.tx, string(name))
		if err != nil {
			return err
		}
		if err := other.yield(r); err != nil {
			return err
		}
		leased, err := other.leasedOf(r)
		if err != nil || leased == "" {
			return err
		}
		return fmt.Errorf("network %s: range %s %w: %s has leased %s", n.name, r, ErrShared, name, leased)
	})
}

// yield frees what is kept of a range for names, and of pools that overlap it. Their
// names still have it, in case that it is free when they come.
func (n *network) yield(r Range) error {
	pools, err := n.overlapping(r)
	if err != nil {
		return err
	}
	var kept []Lease
	err = n.eachKept(func(l Lease) bool {
		a := l.Address.Addr()
		if r.Contains(a) || slices.ContainsFunc(pools, func(p *pool) bool { return p.covers(a) }) {
			kept = append(kept, l)
		}
		return true
	})
	for _, l := range kept {
		if err == nil {
			err = n.unkeep(l)
		}
	}
	return err
}

// leasedOf says what the network has leased of a range, or may lease any time: of its pools
// that overlap, or on request; "" is nothing.
func (n *network) leasedOf(r Range) (what string, err error) {
	pools, err := n.overlapping(r)
	if err != nil {
		return "", err
	}
	for _, p := range pools {
		if p.leased > 0 {
			return fmt.Sprintf("%d addresses of %s-%s", p.leased, p.start, p.end), nil
		}
	}
	err = n.within(r.Start, r.End, func(l Lease) bool {
		if r.Contains(l.Address.Addr()) {
			what = l.Address.Addr().String()
		}
		return what == ""
	})
	return what, err
}

// dropWithin removes the pools that have an address of r, with their queues.
func (n *network) dropWithin(r Range) error {
	pools, err := n.overlapping(r)
	if err != nil {
		return err
	}
	for _, p := range pools {
		if err := n.drop(p); err != nil {
			return err
		}
	}
	return nil
}

// drop removes a pool and its queue.
func (n *network) drop(p *pool) error {
	for {
		a, found, err := n.longestRested(p)
		if err != nil {
			return err
		}
		if !found {
			return n.pools.Delete(addressKey(p.end))
		}
		if err := n.leaveQueue(p, a.address); err != nil {
			return err
		}
		if err := n.addresses.Delete(addressKey(a.address)); err != nil {
			return err
		}
	}
}

// leased counts the addresses of a range that are.
func (n *network) leased(r Range) (count uint64, err error) {
	p, err := n.poolFrom(r.End)
	if err != nil {
		return 0, err
	}
	if p.serves(r) {
		return p.leased, nil
	}
	err = n.within(r.Start, r.End, func(l Lease) bool {
		if r.Contains(l.Address.Addr()) {
			count++
		}
		return true
	})
	return count, err
}
