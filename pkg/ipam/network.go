package ipam

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"

	bolt "go.etcd.io/bbolt"
)

// What the store holds, a bucket in a bucket in a bucket. An address is 16 bytes,
// so that those of a range are next to each other (RFC 4291, 2.5.5.2, for IPv4).
//
//	networks/NAME/addresses     address: lease, or its place in the queue
//	networks/NAME/attachments   container and interface: addresses, in the order of their sets
//	networks/NAME/pools         last address of a range: pool
//	networks/NAME/queue         last address of a range, number: address that rests
var (
	networksBucket    = []byte("networks")
	addressesBucket   = []byte("addresses")
	attachmentsBucket = []byte("attachments")
	poolsBucket       = []byte("pools")
	queueBucket       = []byte("queue")
)

// The bounds of all addresses, as they are in the store.
var (
	lowest  = netip.IPv6Unspecified()
	highest = netip.AddrFrom16([16]byte(bytes.Repeat([]byte{0xff}, 16)))
)

// leavesFull is how full pages of leases are made: addresses are first handed out
// in order, so that a page which is split is not written to again soon.
const leavesFull = 0.9

// network is a network's part of the store, within a transaction.
type network struct {
	name                                 string
	tx                                   *bolt.Tx
	root                                 *bolt.Bucket
	addresses, attachments, pools, queue *bolt.Bucket
	memos                                map[string][]byte // by nameKey: what the memory is to be told
}

// createNetwork makes a network's buckets, which are absent.
func createNetwork(tx *bolt.Tx, name string) (*network, error) {
	b, err := tx.Bucket(networksBucket).CreateBucket([]byte(name))
	for _, key := range [][]byte{addressesBucket, attachmentsBucket, poolsBucket, queueBucket} {
		if err == nil {
			_, err = b.CreateBucket(key)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("create network %q: %w", name, err)
	}
	return openNetwork(tx, name)
}

// openNetwork returns a network's buckets, nil if it has none.
func openNetwork(tx *bolt.Tx, name string) (*network, error) {
	b := tx.Bucket(networksBucket).Bucket([]byte(name))
	if b == nil {
		return nil, nil
	}
	n := &network{
		name: name, tx: tx, root: b,
		addresses: b.Bucket(addressesBucket), attachments: b.Bucket(attachmentsBucket), pools: b.Bucket(poolsBucket), queue: b.Bucket(queueBucket),
	}
	if n.addresses == nil || n.attachments == nil || n.pools == nil || n.queue == nil {
		return nil, fmt.Errorf("%w: network %q is incomplete", ErrDamaged, name)
	}
	n.addresses.FillPercent = leavesFull
	return n, nil
}

// addressKey is an address as the store has it.
func addressKey(a netip.Addr) []byte {
	key := a.As16()
	return key[:]
}

// keyAddress reads what addressKey wrote.
func keyAddress(key []byte) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(key)
	if !ok || len(key) != 16 {
		return a, fmt.Errorf("%w: %x is no address", ErrDamaged, key)
	}
	return a.Unmap(), nil
}

// encodeAddresses is the addresses of leases, one after another.
func encodeAddresses(leases []Lease) (record []byte) {
	for _, l := range leases {
		record = append(record, addressKey(l.Address.Addr())...)
	}
	return record
}

// decodeAddresses reads what encodeAddresses wrote.
func decodeAddresses(record []byte) (list []netip.Addr, err error) {
	for ; len(record) > 0; record = record[min(len(record), 16):] {
		a, err := keyAddress(record[:min(len(record), 16)])
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// held lists the leases of an attachment, in the order of their sets.
func (n *network) held(a Attachment) (leases []Lease, err error) {
	list, err := decodeAddresses(n.attachments.Get(a.key()))
	for _, address := range list {
		l, _, err := n.lease(address)
		if err != nil {
			return nil, err
		}
		if l.Attachment != a || !l.Until.IsZero() {
			return nil, fmt.Errorf("%w: %s is listed for %s and leased to %s", ErrDamaged, address, a.Container, l.Container)
		}
		leases = append(leases, l)
	}
	return leases, err
}

// hold records which leases an attachment has.
func (n *network) hold(a Attachment, leases []Lease) error {
	if len(leases) == 0 {
		return n.attachments.Delete(a.key())
	}
	return n.attachments.Put(a.key(), encodeAddresses(leases))
}

// each calls visit with every attachment.
func (n *network) each(visit func(Attachment)) error {
	return n.attachments.ForEach(func(k, _ []byte) error {
		a, err := n.attachment(k)
		if err == nil {
			visit(a)
		}
		return err
	})
}

// attachment reads what Attachment.key wrote.
func (n *network) attachment(key []byte) (Attachment, error) {
	container, ifname, ok := bytes.Cut(key, []byte{0})
	if !ok {
		return Attachment{}, fmt.Errorf("%w: %q is no attachment", ErrDamaged, key)
	}
	return Attachment{n.name, string(container), string(ifname)}, nil
}

// checkHeld is ErrDamaged unless each attachment has the leases that it should.
func (n *network) checkHeld() error {
	return n.attachments.ForEach(func(k, _ []byte) error {
		a, err := n.attachment(k)
		if err == nil {
			_, err = n.held(a)
		}
		return err
	})
}

// release frees all that some attachments hold, or keeps it for their names.
func (n *network) release(attachments ...Attachment) error {
	now := time.Now().Round(0)
	for _, a := range attachments {
		leases, err := n.held(a)
		if err != nil {
			return err
		}
		for _, l := range leases {
			kept, err := n.keep(l, now)
			if err == nil && !kept {
				err = n.free(l.Address.Addr())
			}
			if err != nil {
				return err
			}
		}
		if err := n.attachments.Delete(a.key()); err != nil {
			return err
		}
	}
	return nil
}

// lease reads the lease of an address, if it has one.
func (n *network) lease(a netip.Addr) (l Lease, leased bool, err error) {
	record := n.addresses.Get(addressKey(a))
	if record == nil || isPlace(record) {
		return l, false, nil
	}
	l, err = decodeLease(n.name, a, record)
	return l, true, err
}

// put writes a lease.
func (n *network) put(l Lease) error {
	return n.addresses.Put(addressKey(l.Address.Addr()), l.encode())
}

// within calls visit with the leases of the addresses from first to last, in their
// order, until it returns false.
func (n *network) within(first, last netip.Addr, visit func(Lease) bool) error {
	c, end := n.addresses.Cursor(), addressKey(last)
	for k, record := c.Seek(addressKey(first)); k != nil && bytes.Compare(k, end) <= 0; k, record = c.Next() {
		if isPlace(record) {
			continue
		}
		a, err := keyAddress(k)
		if err != nil {
			return err
		}
		l, err := decodeLease(n.name, a, record)
		if err != nil {
			return err
		}
		if !visit(l) {
			return nil
		}
	}
	return nil
}
