package ipam

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// What the store holds, a bucket in a bucket in a bucket:
//
//	networks/NAME/leases        address: lease
//	networks/NAME/attachments   container and interface: addresses, in the order of their sets
//	networks/NAME/ranges/RANGE  "next": the first address never used, "count": how many are leased
//	networks/NAME/ranges/RANGE/freed  number, from 1 up: address
var (
	networksBucket    = []byte("networks")
	leasesBucket      = []byte("leases")
	attachmentsBucket = []byte("attachments")
	rangesBucket      = []byte("ranges")
	freedBucket       = []byte("freed")
	nextKey           = []byte("next")
	countKey          = []byte("count")
)

// network is a network's part of the store, within a transaction.
type network struct{ byAddress, byAttachment, ranges *bolt.Bucket }

// createNetwork returns a network's buckets, made when absent.
func createNetwork(tx *bolt.Tx, name string) (n network, err error) {
	b, err := tx.CreateBucketIfNotExists(networksBucket)
	if err == nil {
		b, err = b.CreateBucketIfNotExists([]byte(name))
	}
	for bucket, key := range map[**bolt.Bucket][]byte{
		&n.byAddress: leasesBucket, &n.byAttachment: attachmentsBucket, &n.ranges: rangesBucket,
	} {
		if err == nil {
			*bucket, err = b.CreateBucketIfNotExists(key)
		}
	}
	return n, err
}

// openNetwork returns a network's buckets to read, if there are any.
func openNetwork(tx *bolt.Tx, name string) (n network, ok bool) {
	b := tx.Bucket(networksBucket)
	if b != nil {
		b = b.Bucket([]byte(name))
	}
	if b == nil {
		return network{}, false
	}
	return network{b.Bucket(leasesBucket), b.Bucket(attachmentsBucket), b.Bucket(rangesBucket)}, true
}

// held lists the leases of an attachment, in the order of their sets.
func (n network) held(a Attachment) (leases []Lease, err error) {
	var addresses []netip.Addr
	if b := n.byAttachment.Get(a.key()); b != nil {
		if err := json.Unmarshal(b, &addresses); err != nil {
			return nil, fmt.Errorf("%w: an attachment is unreadable: %w", ErrDamaged, err)
		}
	}
	for _, address := range addresses {
		l, err := decodeLease(n.byAddress.Get(address.AsSlice()))
		if err != nil {
			return nil, err
		}
		leases = append(leases, l)
	}
	return leases, nil
}

// hold records which leases an attachment has.
func (n network) hold(a Attachment, leases []Lease) error {
	addresses := make([]netip.Addr, len(leases))
	for i, l := range leases {
		addresses[i] = l.Address.Addr()
	}
	b, err := json.Marshal(addresses)
	if err != nil {
		return err
	}
	return n.byAttachment.Put(a.key(), b)
}

// leases lists all, by address.
func (n network) leases() (all []Lease, err error) {
	err = n.byAddress.ForEach(func(_, v []byte) error {
		l, err := decodeLease(v)
		all = append(all, l)
		return err
	})
	return all, err
}

// put writes a lease.
func (n network) put(l Lease) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return n.byAddress.Put(l.Address.Addr().AsSlice(), b)
}

// take finds a free address of a range and counts it as leased. The zero address
// says that there is none.
func (n network) take(r Range) (a netip.Addr, err error) {
	b, err := n.ranges.CreateBucketIfNotExists([]byte(r.String()))
	if err != nil {
		return a, err
	}
	if a, err = n.takeUnused(b, r); err != nil || !a.IsValid() {
		if a, err = n.takeFreed(b, r); err != nil || !a.IsValid() {
			return a, err
		}
	}
	return a, b.Put(countKey, binary.BigEndian.AppendUint64(nil, n.count(r)+1))
}

// takeUnused returns the first address that was never handed out from a range.
func (n network) takeUnused(b *bolt.Bucket, r Range) (netip.Addr, error) {
	next := r.Start
	if last := b.Get(nextKey); last != nil {
		if len(last) == 0 { // the range ends where its family does
			return netip.Addr{}, nil
		}
		next, _ = netip.AddrFromSlice(last)
	}
	for ; next.IsValid() && !r.End.Less(next); next = next.Next() {
		if r.Contains(next) && n.byAddress.Get(next.AsSlice()) == nil {
			return next, b.Put(nextKey, next.Next().AsSlice())
		}
	}
	return netip.Addr{}, b.Put(nextKey, next.AsSlice())
}

// takeFreed returns the address that was given back to a range longest ago.
func (n network) takeFreed(b *bolt.Bucket, r Range) (netip.Addr, error) {
	freed := b.Bucket(freedBucket)
	if freed == nil {
		return netip.Addr{}, nil
	}
	c := freed.Cursor()
	for number, address := c.First(); number != nil; number, address = c.First() {
		a, ok := netip.AddrFromSlice(address)
		if err := freed.Delete(number); err != nil {
			return netip.Addr{}, err
		}
		// It may be held from a range of other bounds, or be the gateway by now.
		if ok && r.Contains(a) && n.byAddress.Get(a.AsSlice()) == nil {
			return a, nil
		}
	}
	return netip.Addr{}, nil
}

// count is how many addresses of a range are leased.
func (n network) count(r Range) uint64 {
	if b := n.ranges.Bucket([]byte(r.String())); b != nil {
		if count := b.Get(countKey); count != nil {
			return binary.BigEndian.Uint64(count)
		}
	}
	return 0
}

// release gives back the leases of one attachment.
func (n network) release(leases []Lease) error {
	for _, l := range leases {
		if err := n.byAddress.Delete(l.Address.Addr().AsSlice()); err != nil {
			return err
		}
		if err := n.byAttachment.Delete(l.key()); err != nil {
			return err
		}
		if err := n.rest(l); err != nil {
			return err
		}
	}
	return nil
}

// rest puts a freed address at the end of its range's queue.
func (n network) rest(l Lease) error {
	b, err := n.ranges.CreateBucketIfNotExists([]byte(l.Range))
	if err != nil {
		return err
	}
	if count := b.Get(countKey); count != nil {
		left := binary.BigEndian.Uint64(count) - 1
		if err := b.Put(countKey, binary.BigEndian.AppendUint64(nil, left)); err != nil {
			return err
		}
	}
	freed, err := b.CreateBucketIfNotExists(freedBucket)
	if err != nil {
		return err
	}
	number, err := freed.NextSequence()
	if err != nil {
		return err
	}
	return freed.Put(binary.BigEndian.AppendUint64(nil, number), l.Address.Addr().AsSlice())
}

// describe says how full a set is.
func (n network) describe(set Set) string {
	var parts []string
	for _, r := range set {
		parts = append(parts, fmt.Sprintf("%s (%d of %d leased)", r, n.count(r), r.Size()))
	}
	return strings.Join(parts, ", ")
}
