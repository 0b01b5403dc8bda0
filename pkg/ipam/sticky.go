package ipam

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// expireAtOnce bounds how many kept addresses one call frees when their time has come,
// and with that what it costs.
const expireAtOnce = 16

// Buckets of networks with sticky addresses, beside those that all have.
//
//	networks/NAME/names   name and interface: its addresses
//	networks/NAME/kept    end of its time and address: nothing
var (
	namesBucket = []byte("names")
	keptBucket  = []byte("kept")
)

// nameKey is an interface of a name.
func nameKey(name, ifname string) []byte { return []byte(name + "\x00" + ifname) }

// keptKey sorts kept addresses by when their time ends.
func keptKey(l Lease) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(l.Until.UnixNano())), addressKey(l.Address.Addr())...)
}

// recall looks for the address that the name of r had in a set, and takes it if nobody
// alive has it. The zero address says that there is none.
func (n *network) recall(set Set, r Request) (netip.Addr, error) {
	names := n.root.Bucket(namesBucket)
	if r.Sticky.Name == "" || names == nil {
		return netip.Addr{}, nil
	}
	list, err := decodeAddresses(names.Get(nameKey(r.Sticky.Name, r.Interface)))
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range list {
		if !set.Serves(a) {
			continue
		}
		if holder, err := n.claim(set, a, r); err != nil || holder == nil {
			return a, err
		}
	}
	return netip.Addr{}, nil
}

// remember notes which addresses the name of r has now. What was kept for it
// besides is free.
func (n *network) remember(r Request, leases []Lease) error {
	if r.Sticky.Name == "" {
		return nil
	}
	names, err := n.root.CreateBucketIfNotExists(namesBucket)
	if err != nil {
		return err
	}
	key := nameKey(r.Sticky.Name, r.Interface)
	old, err := decodeAddresses(names.Get(key))
	if err != nil {
		return err
	}
	for _, a := range old {
		l, leased, err := n.lease(a)
		if err != nil {
			return err
		}
		if leased && !l.Until.IsZero() && l.Sticky.Name == r.Sticky.Name {
			if err := n.unkeep(l); err != nil {
				return err
			}
		}
	}
	record := encodeAddresses(leases)
	if bytes.Equal(names.Get(key), record) {
		return nil // so does the memory
	}
	n.memo(key, record)
	return names.Put(key, record)
}

// keep turns the lease of an attachment that is gone into one that waits for its
// name. It does nothing, and says so, where the name has another address by now.
func (n *network) keep(l Lease, now time.Time) (kept bool, err error) {
	names := n.root.Bucket(namesBucket)
	if l.Sticky.Name == "" || names == nil {
		return false, nil
	}
	list, err := decodeAddresses(names.Get(nameKey(l.Sticky.Name, l.Interface)))
	if err != nil || !slices.Contains(list, l.Address.Addr()) {
		return false, err
	}
	bucket, err := n.root.CreateBucketIfNotExists(keptBucket)
	if err != nil {
		return false, err
	}
	l.Until = now.Add(l.Sticky.For)
	if err := bucket.Put(keptKey(l), nil); err != nil {
		return false, err
	}
	return true, n.put(l)
}

// unkeep frees a kept address.
func (n *network) unkeep(l Lease) error {
	if err := n.root.Bucket(keptBucket).Delete(keptKey(l)); err != nil {
		return err
	}
	return n.free(l.Address.Addr())
}

// forget frees a kept address, and its name has it no longer.
func (n *network) forget(l Lease) error {
	names, key := n.root.Bucket(namesBucket), nameKey(l.Sticky.Name, l.Interface)
	record := names.Get(key)
	gone := addressKey(l.Address.Addr())
	var rest []byte
	for chunk := range slices.Chunk(record, len(gone)) {
		if !bytes.Equal(chunk, gone) {
			rest = append(rest, chunk...)
		}
	}
	n.memo(key, rest)
	var err error
	if len(rest) > 0 {
		err = names.Put(key, rest)
	} else {
		err = names.Delete(key)
	}
	if err != nil {
		return err
	}
	return n.unkeep(l)
}

// eachKept calls visit with the kept leases, in the order in which their time ends,
// until it returns false.
func (n *network) eachKept(visit func(Lease) bool) error {
	bucket := n.root.Bucket(keptBucket)
	if bucket == nil {
		return nil
	}
	c := bucket.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		a, err := keyAddress(k[min(len(k), 8):])
		if err != nil {
			return err
		}
		l, leased, err := n.lease(a)
		if err != nil {
			return err
		}
		if !leased || !bytes.Equal(keptKey(l), k) {
			return fmt.Errorf("%w: %s is kept and not leased so", ErrDamaged, a)
		}
		if !visit(l) {
			return nil
		}
	}
	return nil
}

// expire frees addresses that were kept for long enough.
func (n *network) expire(now time.Time) error {
	var over []Lease
	err := n.eachKept(func(l Lease) bool {
		if l.Until.After(now) {
			return false
		}
		over = append(over, l)
		return len(over) < expireAtOnce
	})
	for _, l := range over {
		if err == nil {
			err = n.forget(l)
		}
	}
	return err
}

// firstKept finds the address of a set whose time ends first, if one is kept.
func (n *network) firstKept(set Set) (first Lease, found bool, err error) {
	err = n.eachKept(func(l Lease) bool {
		first, found = l, set.dynamic(l.Address.Addr())
		return !found
	})
	return first, found, err
}

// breakPromise frees the address of a set that was to be kept for the shortest time
// from now: better than to have none.
func (n *network) breakPromise(set Set, _ Request) error {
	l, found, err := n.firstKept(set)
	if err != nil || !found {
		return err
	}
	return n.forget(l)
}
