package ipam

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// maxResting bounds the queue of a set too large to be used up: beyond it the
// address that was freed longest ago comes before those never used. A million
// of them are about 60 MB. Tests lower it.
var maxResting uint64 = 1 << 20

// pool is what is known of the addresses of a range. Those that are free are the
// ones from unused on that have no record, and those that rest: each of the latter
// stands once in the queue, and its record says where.
//
// Pools never overlap, and stay when a configuration no longer has their range:
// an address can then be freed without knowing any.
type pool struct {
	start, end, gateway netip.Addr
	unused              netip.Addr // from here on, none was handed out in turn; zero when all were
	leased              uint64     // how many addresses are
	resting             uint64     // how many are in the queue
}

// poolFields is how many parts a pool has in the store, beside its key.
const poolFields = 5

// serves says whether the pool is that of r.
func (p *pool) serves(r Range) bool {
	return p != nil && p.start == r.Start && p.end == r.End && p.gateway == r.Gateway
}

// covers says whether an address is one of the pool's.
func (p *pool) covers(a netip.Addr) bool {
	return p != nil && a != p.gateway && between(p.start, a, p.end)
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
	for _, n := range []uint64{p.leased, p.resting} {
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
	p := &pool{f.address(), end, f.address(), f.address(), f.number(64), f.number(64)}
	if f.err != nil || !between(p.start, p.end, p.end) {
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

// pool returns the pool of a range, made when absent. As long as it has no leases, another
// network may have come to have some of the range.
func (n *network) pool(r Range) (*pool, error) {
	p, err := n.poolFrom(r.End)
	switch {
	case err != nil:
		return nil, err
	case !p.serves(r):
		return n.adopt(r)
	case p.leased == 0:
		return p, n.checkShared(r)
	}
	return p, nil
}

// take finds a free address in a set and counts it as leased: the first that was
// never used or, where there is none, the one that was freed longest ago. The zero
// address says that there is none.
func (n *network) take(set Set) (a netip.Addr, err error) {
	var pools []*pool
	resting := uint64(0)
	for _, r := range set {
		if r.OnRequest {
			continue
		}
		p, err := n.pool(r)
		if err != nil {
			return a, err
		}
		pools = append(pools, p)
		resting += p.resting
	}
	choices := []func([]*pool) (*pool, netip.Addr, error){n.firstUnused, n.firstRested}
	if resting >= maxResting {
		slices.Reverse(choices)
	}
	for _, choose := range choices {
		p, a, err := choose(pools)
		if err != nil {
			return a, err
		}
		if p != nil {
			return a, n.occupy(p, a)
		}
	}
	return a, nil
}

// firstUnused returns the first address of some pools that was never handed out, and
// its pool, nil if there is none. It passes over those that were, on request or
// before the range was as it is, of which each is met only once.
func (n *network) firstUnused(pools []*pool) (*pool, netip.Addr, error) {
	for _, p := range pools {
		if !p.unused.IsValid() {
			continue
		}
		for p.unused.IsValid() && (p.unused == p.gateway || n.addresses.Get(addressKey(p.unused)) != nil) {
			p.advance()
		}
		if p.unused.IsValid() {
			return p, p.unused, nil
		}
		if err := n.save(p); err != nil {
			return nil, netip.Addr{}, err
		}
	}
	return nil, netip.Addr{}, nil
}

// advance passes over an address that was never used.
func (p *pool) advance() {
	if p.unused = p.unused.Next(); !between(p.start, p.unused, p.end) {
		p.unused = netip.Addr{}
	}
}

// place is where an address stands in the queue: lower numbers were freed earlier.
type place struct {
	address netip.Addr
	number  uint64
}

// firstRested returns the address of some pools that was freed longest ago, and its
// pool, nil if there is none.
func (n *network) firstRested(pools []*pool) (from *pool, a netip.Addr, err error) {
	var first place
	for _, p := range pools {
		at, found, err := n.longestRested(p)
		if err != nil {
			return nil, a, err
		}
		if found && (from == nil || at.number < first.number) {
			from, first = p, at
		}
	}
	return from, first.address, nil
}

// longestRested returns the head of a pool's queue.
func (n *network) longestRested(p *pool) (at place, found bool, err error) {
	prefix := addressKey(p.end)
	k, v := n.queue.Cursor().Seek(prefix)
	if !bytes.HasPrefix(k, prefix) || len(k) != len(prefix)+placeSize {
		return at, false, nil
	}
	at.number = binary.BigEndian.Uint64(k[len(prefix):])
	at.address, err = keyAddress(v)
	return at, true, err
}

// queueKey is where the address with a number rests.
func (p *pool) queueKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(addressKey(p.end)), number)
}

// placeSize is how long the record of an address that rests is: its number in the
// queue. That of a lease is longer.
const placeSize = 8

// isPlace says whether the record of an address is its place in the queue.
func isPlace(record []byte) bool { return len(record) == placeSize }

// occupy counts a free address of a pool as leased, and takes it out of the queue.
func (n *network) occupy(p *pool, a netip.Addr) error {
	if err := n.leaveQueue(p, a); err != nil {
		return err
	}
	if a == p.unused {
		p.advance()
	}
	p.leased++
	return n.save(p)
}

// occupyAny is occupy for an address that may be of no pool, or of one that is not in use. A
// pool without leases is dropped: with one it would be the network's alone, and other
// networks may have come to have some of it.
func (n *network) occupyAny(a netip.Addr) error {
	p, err := n.poolFrom(a)
	switch {
	case err != nil || !p.covers(a):
		return err
	case p.leased == 0:
		return n.drop(p)
	}
	return n.occupy(p, a)
}

// leaveQueue takes an address out of its pool's queue, if it is there.
func (n *network) leaveQueue(p *pool, a netip.Addr) error {
	record := n.addresses.Get(addressKey(a))
	if !isPlace(record) {
		return nil
	}
	if p.resting == 0 {
		return fmt.Errorf("%w: %s rests, but none of its pool does", ErrDamaged, a)
	}
	p.resting--
	return n.queue.Delete(p.queueKey(binary.BigEndian.Uint64(record)))
}

// free removes the lease of an address, and puts the address at the end of its
// pool's queue.
func (n *network) free(a netip.Addr) error {
	key := addressKey(a)
	p, err := n.poolFrom(a)
	if err != nil {
		return err
	}
	if !p.covers(a) {
		return n.addresses.Delete(key) // it is of no range that is in use
	}
	if p.leased == 0 {
		return fmt.Errorf("%w: %s is leased, but none of its pool is", ErrDamaged, a)
	}
	p.leased--
	if err := n.rest(p, a); err != nil {
		return err
	}
	return n.save(p)
}

// rest puts an address at the end of its pool's queue.
func (n *network) rest(p *pool, a netip.Addr) error {
	number, err := n.queue.NextSequence()
	if err != nil {
		return err
	}
	p.resting++
	if err := n.queue.Put(p.queueKey(number), addressKey(a)); err != nil {
		return err
	}
	return n.addresses.Put(addressKey(a), binary.BigEndian.AppendUint64(nil, number))
}
