package ipam

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxResting bounds the queue of a range too large to be used up: beyond it the
// address that was freed longest ago comes before those never used. A million
// of them are about 60 MB. Tests lower it.
var maxResting uint64 = 1 << 20

// pool is what is known of the addresses of a range. Those that are free are the
// ones from unused on that have no lease, and those in the queue.
//
// Pools never overlap, and stay when a configuration no longer has their range:
// an address can then be freed without knowing any.
type pool struct {
	start, end, gateway netip.Addr
	unused              netip.Addr // the first address never handed out; zero when there is none
	leased              uint64     // how many addresses are
	head, tail          uint64     // numbers in the queue: of its first address, and of the next one to be freed
}

// poolFields is how many parts a pool has in the store, beside its key.
const poolFields = 6

// serves says whether the pool is that of r.
func (p *pool) serves(r Range) bool {
	return p != nil && p.start == r.Start && p.end == r.End && p.gateway == r.Gateway
}

// encode is the pool as the store has it under its last address.
func (p *pool) encode() []byte {
	var parts []string
	for _, a := range []netip.Addr{p.start, p.gateway, p.unused} {
		text := ""
		if a.IsValid() {
			text = a.String()
		}
		parts = append(parts, text)
	}
	for _, n := range []uint64{p.leased, p.head, p.tail} {
		parts = append(parts, strconv.FormatUint(n, 10))
	}
	return []byte(strings.Join(parts, "\x00"))
}

// decodePool reads what encode wrote.
func decodePool(key, record []byte) (*pool, error) {
	end, err := keyAddress(key)
	if err != nil {
		return nil, err
	}
	f := fields{parts: strings.Split(string(record), "\x00")}
	if len(f.parts) != poolFields {
		return nil, fmt.Errorf("%w: the pool up to %s has %d parts", ErrDamaged, end, len(f.parts))
	}
	p := &pool{f.address(), end, f.address(), f.address(), f.number(64), f.number(64), f.number(64)}
	if f.err != nil || !between(p.start, p.end, p.end) || p.head > p.tail {
		return nil, fmt.Errorf("%w: the pool up to %s makes no sense", ErrDamaged, end)
	}
	return p, nil
}

// poolFrom returns the first pool that ends at an address or after it, nil if
// there is none.
func (n *network) poolFrom(a netip.Addr) (*pool, error) {
	key, record := n.pools.Cursor().Seek(addressKey(a))
	if key == nil {
		return nil, nil
	}
	return decodePool(key, record)
}

func (n *network) save(p *pool) error { return n.pools.Put(addressKey(p.end), p.encode()) }

// pool returns the pool of a range, made when absent.
func (n *network) pool(r Range) (*pool, error) {
	p, err := n.poolFrom(r.End)
	if err != nil || p.serves(r) {
		return p, err
	}
	return n.adopt(r)
}

// adopt makes the pool of a range that is new in the configuration. The pools that
// it overlaps are those of its predecessors and go; their leases stay, and the
// order in which their addresses were freed is forgotten.
func (n *network) adopt(r Range) (*pool, error) {
	for {
		old, err := n.poolFrom(r.Start)
		if err != nil {
			return nil, err
		}
		if old == nil || bytes.Compare(addressKey(r.End), addressKey(old.start)) < 0 {
			break
		}
		if err := n.drop(old); err != nil {
			return nil, err
		}
	}
	leased, err := n.leased(r)
	if err != nil {
		return nil, err
	}
	p := &pool{start: r.Start, end: r.End, gateway: r.Gateway, unused: r.Start, leased: leased}
	return p, n.save(p)
}

// drop removes a pool and its queue.
func (n *network) drop(p *pool) error {
	for ; p.head < p.tail; p.head++ {
		if err := n.resting.Delete(p.queueKey(p.head)); err != nil {
			return err
		}
	}
	return n.pools.Delete(addressKey(p.end))
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

// take finds a free address in a set and counts it as leased. The zero address
// says that there is none.
func (n *network) take(set Set) (a netip.Addr, err error) {
	for _, r := range set {
		p, err := n.pool(r)
		if err != nil {
			return a, err
		}
		if a, err = n.next(p); err != nil {
			return a, err
		}
		if a.IsValid() {
			p.leased++
		}
		if err := n.save(p); err != nil || a.IsValid() {
			return a, err
		}
	}
	return a, nil
}

// next chooses a free address of a pool. The zero address says that there is none.
func (n *network) next(p *pool) (netip.Addr, error) {
	if p.tail-p.head < maxResting {
		if a := n.nextUnused(p); a.IsValid() {
			return a, nil
		}
	}
	if a, err := n.nextRested(p); err != nil || a.IsValid() {
		return a, err
	}
	return n.nextUnused(p), nil
}

// isFree says whether an address of a pool may be handed out.
func (n *network) isFree(p *pool, a netip.Addr) bool {
	return a != p.gateway && n.leases.Get(addressKey(a)) == nil
}

// nextUnused returns the first address that was never handed out. It passes over
// leases from before the range was as it is, of which each is met only once.
func (n *network) nextUnused(p *pool) netip.Addr {
	for p.unused.IsValid() {
		a := p.unused
		if p.unused = a.Next(); !between(p.start, p.unused, p.end) {
			p.unused = netip.Addr{}
		}
		if n.isFree(p, a) {
			return a
		}
	}
	return netip.Addr{}
}

// nextRested returns the address that was freed longest ago.
func (n *network) nextRested(p *pool) (netip.Addr, error) {
	for p.head < p.tail {
		key := p.queueKey(p.head)
		a, err := keyAddress(n.resting.Get(key))
		if err != nil {
			return a, err
		}
		if err := n.resting.Delete(key); err != nil {
			return a, err
		}
		if p.head++; n.isFree(p, a) {
			return a, nil
		}
	}
	return netip.Addr{}, nil
}

// free removes the lease of an address, and puts the address at the end of its
// pool's queue.
func (n *network) free(a netip.Addr) error {
	key := addressKey(a)
	if err := n.leases.Delete(key); err != nil {
		return err
	}
	p, err := n.poolFrom(a)
	if err != nil || p == nil || a == p.gateway || !between(p.start, a, p.end) {
		return err // it is of no range that is in use
	}
	if p.leased == 0 {
		return fmt.Errorf("%w: %s is leased, but none of its pool is", ErrDamaged, a)
	}
	p.leased--
	if !p.unused.IsValid() || a.Less(p.unused) {
		if err := n.resting.Put(p.queueKey(p.tail), key); err != nil {
			return err
		}
		p.tail++
	}
	return n.save(p)
}

// queueKey is where the address with a number rests.
func (p *pool) queueKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(addressKey(p.end)), number)
}
