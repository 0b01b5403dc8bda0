package records

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/ranges"
)

// Pool says which addresses of a range are free. A freed address is added to the end of the free
// queue (queue.go). An address that was never given out is not in the queue. It is Unused or a
// later address, and has no record.
//
// Pools never overlap. A pool stays in the store when its range is removed from the configuration,
// so DEL can free an address without knowing the configured ranges.
type Pool struct {
	Start, End, Gateway netip.Addr
	Unused              netip.Addr // the next address that was never given out; zero if there is none
	Leased              uint64     // number of leased addresses
	Queued              uint64     // number of addresses in the free queue
}

// poolFields is the number of fields in the record of a pool. The record does not contain the
// pool's last address, because this address is the record's key.
const poolFields = 5

// Range returns the range of the pool. The field Subnet is not set, because the pool does not store
// the subnet.
func (p *Pool) Range() ranges.Range {
	return ranges.Range{Start: p.Start, End: p.End, Gateway: p.Gateway}
}

// Serves reports whether p is the pool of the range r. It returns false if p is nil.
func (p *Pool) Serves(r ranges.Range) bool {
	return p != nil && p.Start == r.Start && p.End == r.End && p.Gateway == r.Gateway
}

// Covers reports whether the range of the pool can give out the address a. It returns false if p is
// nil.
func (p *Pool) Covers(a netip.Addr) bool { return p != nil && p.Range().Contains(a) }

// Advance moves Unused to the next address of the range, or sets it to the zero address after the
// last one.
func (p *Pool) Advance() {
	if p.Unused = p.Unused.Next(); !ranges.Between(p.Start, p.Unused, p.End) {
		p.Unused = netip.Addr{}
	}
}

// encode returns the record of the pool. The record's key is the pool's last address.
func (p *Pool) encode() []byte {
	var fields []string
	for _, a := range []netip.Addr{p.Start, p.Gateway, p.Unused} {
		text := ""
		if a.IsValid() {
			text = a.String()
		}
		fields = append(fields, text)
	}
	for _, n := range []uint64{p.Leased, p.Queued} {
		fields = append(fields, strconv.FormatUint(n, 10))
	}
	return []byte(strings.Join(fields, "\x00"))
}

// decodePool is the inverse of encode.
func decodePool(key, record []byte) (*Pool, error) {
	end, err := keyAddress(key)
	if err != nil {
		return nil, err
	}
	f := fields{rest: strings.Split(string(record), "\x00")}
	if len(f.rest) != poolFields {
		return nil, fmt.Errorf("%w: the pool up to %s has %d fields", boltfile.ErrDamaged, end, len(f.rest))
	}
	p := &Pool{f.address(), end, f.address(), f.address(), f.number(64), f.number(64)}
	if f.err != nil || !ranges.Between(p.Start, p.End, p.End) {
		return nil, fmt.Errorf("%w: the pool up to %s cannot be decoded", boltfile.ErrDamaged, end)
	}
	return p, nil
}

// PoolAt returns the pool that contains the address a, if there is one. Otherwise it returns the
// first pool after a, or nil.
func (n *Network) PoolAt(a netip.Addr) (*Pool, error) {
	key, record := n.pools.Cursor().Seek(addressKey(a))
	if key == nil {
		return nil, nil
	}
	return decodePool(key, record)
}

// EachPool calls visit with every pool, in ascending order of their addresses.
func (n *Network) EachPool(visit func(*Pool)) error {
	return n.pools.ForEach(func(key, record []byte) error {
		p, err := decodePool(key, record)
		if err == nil {
			visit(p)
		}
		return err
	})
}

// Overlapping returns the pools that have at least one address in common with the range r.
func (n *Network) Overlapping(r ranges.Range) (pools []*Pool, err error) {
	c := n.pools.Cursor()
	for k, record := c.Seek(addressKey(r.Start)); k != nil; k, record = c.Next() {
		p, err := decodePool(k, record)
		if err != nil {
			return nil, err
		}
		if !r.Overlaps(p.Range()) {
			break
		}
		pools = append(pools, p)
	}
	return pools, nil
}

// Leased returns how many addresses of a range are leased. If the range has a pool, Leased
// returns the pool's count. Otherwise it counts the leases.
func (n *Network) Leased(r ranges.Range) (count uint64, err error) {
	p, err := n.PoolAt(r.End)
	if err != nil {
		return 0, err
	}
	if p.Serves(r) {
		return p.Leased, nil
	}
	err = n.EachLease(r.Start, r.End, func(l Lease) bool {
		if r.Contains(l.Address.Addr()) {
			count++
		}
		return true
	})
	return count, err
}

// SavePool writes a pool.
func (n *Network) SavePool(p *Pool) error { return n.pools.Put(addressKey(p.End), p.encode()) }

// DropPool removes a pool and its free queue. The leases of the pool's addresses stay.
func (n *Network) DropPool(p *Pool) error {
	for {
		head, found, err := n.QueueHead(p)
		if err != nil {
			return err
		}
		if !found {
			return n.pools.Delete(addressKey(p.End))
		}
		if err := n.dequeue(p, head.Address); err != nil {
			return err
		}
		if err := n.addresses.Delete(addressKey(head.Address)); err != nil {
			return err
		}
	}
}

// HasRecord reports whether an address is leased or in a free queue.
func (n *Network) HasRecord(a netip.Addr) bool { return n.addresses.Get(addressKey(a)) != nil }

// Occupy counts a free address of a pool as leased, and removes it from the free queue.
func (n *Network) Occupy(p *Pool, a netip.Addr) error {
	if err := n.dequeue(p, a); err != nil {
		return err
	}
	if a == p.Unused {
		p.Advance()
	}
	p.Leased++
	return n.SavePool(p)
}

// OccupyAny counts an address as leased like Occupy, but accepts an address without a pool. If the
// address's pool has no leases yet, another network may use a part of the pool's range. A lease
// would make the pool reserve its whole range for this network, so OccupyAny drops the pool
// instead.
func (n *Network) OccupyAny(a netip.Addr) error {
	p, err := n.PoolAt(a)
	switch {
	case err != nil || !p.Covers(a):
		return err
	case p.Leased == 0:
		return n.DropPool(p)
	}
	return n.Occupy(p, a)
}

// Free removes the lease of an address, and adds the address to the end of its pool's free queue.
// If the address has no pool, Free only removes the lease.
func (n *Network) Free(a netip.Addr) error {
	p, err := n.PoolAt(a)
	if err != nil {
		return err
	}
	if !p.Covers(a) {
		return n.addresses.Delete(addressKey(a))
	}
	if p.Leased == 0 {
		return fmt.Errorf("%w: %s is leased, but its pool counts no lease", boltfile.ErrDamaged, a)
	}
	p.Leased--
	if err := n.enqueue(p, a); err != nil {
		return err
	}
	return n.SavePool(p)
}
