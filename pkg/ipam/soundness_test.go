package ipam

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// checkSound fails the test unless all that a store says agrees: each lease is
// listed for its attachment and for no other, pools do not overlap and count
// right, and each free address of a pool can be handed out exactly once.
func checkSound(t testing.TB, s *Store) {
	t.Helper()
	err := s.db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("bbolt: %v", err)
		}
		return tx.Bucket(networksBucket).ForEachBucket(func(name []byte) error {
			n, err := openNetwork(tx, string(name))
			if err != nil {
				return err
			}
			return n.unsound()
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// unsound is the first contradiction.
func (n *network) unsound() error {
	leased := map[netip.Addr]Attachment{}
	kept := 0
	err := n.within(lowest, highest, func(l Lease) bool {
		leased[l.Address.Addr()] = l.Attachment
		if !l.Until.IsZero() {
			kept++
		}
		return true
	})
	if err != nil {
		return err
	}
	listed := 0
	err = n.eachKept(func(Lease) bool { listed++; return true })
	if err != nil || listed != kept {
		return fmt.Errorf("%d addresses are kept, %d listed as such, %w", kept, listed, err)
	}
	var broken error
	err = n.each(func(a Attachment) {
		leases, err := n.held(a)
		if listed += len(leases); err != nil || len(leases) == 0 {
			broken = fmt.Errorf("%v: %d leases, %w", a, len(leases), err)
		}
	})
	if err != nil || broken != nil {
		return fmt.Errorf("%w, %w", err, broken)
	}
	if listed != len(leased) {
		return fmt.Errorf("%d leases, %d of which are listed", len(leased), listed)
	}
	resting := 0
	var last *pool
	err = n.pools.ForEach(func(key, record []byte) error {
		p, err := decodePool(key, record)
		if err != nil {
			return err
		}
		if last != nil && !last.end.Less(p.start) {
			return fmt.Errorf("pools up to %s and %s overlap", last.end, p.end)
		}
		last = p
		resting += int(p.resting)
		return n.checkPool(p, leased)
	})
	if queued := n.queue.Stats().KeyN; err == nil && queued != resting {
		err = fmt.Errorf("%d addresses rest, %d of them in a queue", queued, resting)
	}
	return err
}

// checkPool compares a pool with the leases there are. Only small ones are walked.
func (n *network) checkPool(p *pool, leased map[netip.Addr]Attachment) error {
	free := map[netip.Addr]int{}
	c, prefix := n.queue.Cursor(), addressKey(p.end)
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		a, err := keyAddress(v)
		if err != nil {
			return err
		}
		if record := n.addresses.Get(v); !isPlace(record) || !bytes.Equal(record, k[16:]) {
			return fmt.Errorf("%s does not know its place in the queue", a)
		}
		free[a]++
	}
	if len(free) != int(p.resting) {
		return fmt.Errorf("%d addresses rest, counted as %d", len(free), p.resting)
	}
	count, r := uint64(0), Range{Start: p.start, End: p.end, Gateway: p.gateway}
	for a := p.start; between(p.start, a, p.end) && r.Size() < 1<<17; a = a.Next() {
		if p.unused.IsValid() && !a.Less(p.unused) && n.addresses.Get(addressKey(a)) == nil {
			free[a]++
		}
		_, held := leased[a]
		switch {
		case a == p.gateway:
		case held:
			count++
		case free[a] != 1:
			return fmt.Errorf("%s is free %d times", a, free[a])
		}
	}
	if r.Size() < 1<<17 && count != p.leased {
		return fmt.Errorf("%s: %d leases, counted as %d", r, count, p.leased)
	}
	return nil
}
