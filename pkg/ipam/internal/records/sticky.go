package records

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/leases"
)

// nameKey returns the key in the bucket "names" for a name (such as a pod's) and an interface.
func nameKey(name, ifname string) []byte { return []byte(name + "\x00" + ifname) }

// keptKey returns the key of a kept lease in the bucket "kept". The keys are sorted by the end of
// the keeping time.
func keptKey(l Lease) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(l.Until.UnixNano())), addressKey(l.Address.Addr())...)
}

// NameAddresses returns the sticky addresses that a name (such as a pod's) has for one interface.
func (n *Network) NameAddresses(name, ifname string) ([]netip.Addr, error) {
	names := n.root.Bucket(namesBucket)
	if name == "" || names == nil {
		return nil, nil
	}
	return DecodeAddresses(names.Get(nameKey(name, ifname)))
}

// SetNameAddresses records the sticky addresses of a name (such as a pod's) for one interface: the
// addresses of the leases in the parameter held. If the name had other addresses before and no
// attachment has them now, SetNameAddresses frees them.
func (n *Network) SetNameAddresses(name, ifname string, held []Lease) error {
	if name == "" {
		return nil
	}
	names, err := n.root.CreateBucketIfNotExists(namesBucket)
	if err != nil {
		return err
	}
	key := nameKey(name, ifname)
	old, err := DecodeAddresses(names.Get(key))
	if err != nil {
		return err
	}
	for _, a := range old {
		l, leased, err := n.Lease(a)
		if err != nil {
			return err
		}
		if leased && l.Kept() && l.Sticky.Name == name {
			if err := n.Unkeep(l); err != nil {
				return err
			}
		}
	}
	record := encodeAddresses(held)
	if bytes.Equal(names.Get(key), record) {
		return nil // nothing has changed, so the sticky file need not be written
	}
	n.noteChange(key, record)
	return names.Put(key, record)
}

// noteChange adds a name and its new sticky addresses to the result of ChangedNames.
func (n *Network) noteChange(key, record []byte) {
	if n.changedNames == nil {
		n.changedNames = map[string][]byte{}
	}
	n.changedNames[string(key)] = record
}

// ChangedNames returns the names whose sticky addresses this transaction has changed. The result
// contains keys and records of the sticky file. An empty record means that the name has no
// addresses any more.
func (n *Network) ChangedNames() map[string][]byte { return n.changedNames }

// keep turns the lease of an ended attachment into a kept lease. The address then waits for the
// next attachment with the same name (Lease.Sticky.Name). If the name has another address by now,
// keep does nothing and returns false.
func (n *Network) keep(l Lease, now time.Time) (kept bool, err error) {
	list, err := n.NameAddresses(l.Sticky.Name, l.Interface)
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
	return true, n.PutLease(l)
}

// Unkeep frees a kept address. The address stays recorded for its name. If the address is still
// free at the next request with this name, the request gets the address again.
func (n *Network) Unkeep(l Lease) error {
	if err := n.root.Bucket(keptBucket).Delete(keptKey(l)); err != nil {
		return err
	}
	return n.Free(l.Address.Addr())
}

// Forget frees a kept address, and also removes the address from its name.
func (n *Network) Forget(l Lease) error {
	names, key := n.root.Bucket(namesBucket), nameKey(l.Sticky.Name, l.Interface)
	forgotten := addressKey(l.Address.Addr())
	var rest []byte
	for a := range slices.Chunk(names.Get(key), len(forgotten)) {
		if !bytes.Equal(a, forgotten) {
			rest = append(rest, a...)
		}
	}
	n.noteChange(key, rest)
	var err error
	if len(rest) > 0 {
		err = names.Put(key, rest)
	} else {
		err = names.Delete(key)
	}
	if err != nil {
		return err
	}
	return n.Unkeep(l)
}

// EachKept calls visit with the kept leases in the order in which their keeping times end. It stops
// when visit returns false.
func (n *Network) EachKept(visit func(Lease) bool) error {
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
		l, leased, err := n.Lease(a)
		if err != nil {
			return err
		}
		if !leased || !bytes.Equal(keptKey(l), k) {
			return fmt.Errorf("%w: %s is in the list of kept addresses, but its lease is not kept", boltfile.ErrDamaged, a)
		}
		if !visit(l) {
			return nil
		}
	}
	return nil
}

// AddName adds a name and its sticky addresses from the sticky file, unless the network already has
// the name. key and record are the name's key and record in that file. AddName keeps the addresses
// for the name, except addresses that already have a lease.
func (n *Network) AddName(key string, record []byte, keepFor time.Duration, now time.Time) error {
	list, err := DecodeAddresses(record)
	if err != nil {
		return err
	}
	names, err := n.root.CreateBucketIfNotExists(namesBucket)
	if err != nil {
		return err
	}
	if names.Get([]byte(key)) != nil {
		return nil
	}
	if err := names.Put([]byte(key), record); err != nil {
		return err
	}
	name, ifname, _ := bytes.Cut([]byte(key), []byte{0})
	for _, a := range list {
		if _, leased, err := n.Lease(a); err != nil {
			return err
		} else if leased {
			continue
		}
		if err := n.OccupyAny(a); err != nil {
			return err
		}
		l := Lease{
			Attachment: leases.Attachment{Network: n.Name, Interface: string(ifname)}, Address: netip.PrefixFrom(a, a.BitLen()),
			Time: now, Sticky: leases.Sticky{Name: string(name), For: keepFor},
		}
		if _, err := n.keep(l, now); err != nil {
			return err
		}
	}
	return nil
}
