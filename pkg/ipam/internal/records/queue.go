package records

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
)

// Position is the place of an address in a free queue. The address with the lowest number was freed
// first.
type Position struct {
	Address netip.Addr
	Number  uint64
}

// positionSize is the length of the record of an address in a free queue, in bytes. The record is
// the address's number in the queue. The record of a leased address is always longer.
const positionSize = 8

// isPosition reports whether the record of an address is its position in the free queue. Otherwise
// the record is a lease.
func isPosition(record []byte) bool { return len(record) == positionSize }

// queueKey returns the key of the entry with this number in the free queue of a pool.
func queueKey(p *Pool, number uint64) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(addressKey(p.End)), number)
}

// QueueHead returns the first address in the free queue of a pool. This address was freed longest
// ago.
func (n *Network) QueueHead(p *Pool) (head Position, found bool, err error) {
	prefix := addressKey(p.End)
	k, v := n.queue.Cursor().Seek(prefix)
	if !bytes.HasPrefix(k, prefix) || len(k) != len(prefix)+positionSize {
		return head, false, nil
	}
	head.Number = binary.BigEndian.Uint64(k[len(prefix):])
	head.Address, err = keyAddress(v)
	return head, true, err
}

// enqueue adds an address to the end of its pool's free queue. The caller must then save the pool.
func (n *Network) enqueue(p *Pool, a netip.Addr) error {
	number, err := n.queue.NextSequence()
	if err != nil {
		return err
	}
	p.Queued++
	if err := n.queue.Put(queueKey(p, number), addressKey(a)); err != nil {
		return err
	}
	return n.addresses.Put(addressKey(a), binary.BigEndian.AppendUint64(nil, number))
}

// dequeue removes an address from its pool's free queue, if it is in the queue. The caller must
// then save the pool, and replace the record of the address.
func (n *Network) dequeue(p *Pool, a netip.Addr) error {
	record := n.addresses.Get(addressKey(a))
	if !isPosition(record) {
		return nil
	}
	if p.Queued == 0 {
		return fmt.Errorf("%w: %s has a position in a free queue that is empty", boltfile.ErrDamaged, a)
	}
	p.Queued--
	return n.queue.Delete(queueKey(p, binary.BigEndian.Uint64(record)))
}
