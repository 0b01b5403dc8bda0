package ipam

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/ranges"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
)

// checkSound fails the test unless the records of a store agree with each other. Each lease must be
// listed for its attachment and for no other attachment. Pools must not overlap and must count
// correctly. Each free address must be either in the free queue of its pool or among the pool's
// unused addresses, and only once.
func checkSound(t testing.TB, s *Store) {
	t.Helper()
	err := s.file.View(func(tx *boltfile.Tx) error {
		for err := range tx.Check() {
			t.Errorf("bbolt: %v", err)
		}
		names, err := records.Names(tx)
		for _, name := range names {
			n, openErr := records.Open(tx, name)
			if openErr != nil {
				return openErr
			}
			b := tx.Bucket([]byte("networks")).Bucket([]byte(name))
			if err := unsound(n, b.Bucket([]byte("addresses")), b.Bucket([]byte("queue"))); err != nil {
				return err
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// unsound returns an error for the first contradiction between the records of a network. addresses
// and queue are the network's buckets with these names.
func unsound(n *records.Network, addresses, queue *bolt.Bucket) error {
	leased := map[netip.Addr]Attachment{}
	kept := 0
	err := n.EachLease(records.Lowest, records.Highest, func(l Lease) bool {
		leased[l.Address.Addr()] = l.Attachment
		if l.Kept() {
			kept++
		}
		return true
	})
	if err != nil {
		return err
	}
	listed := 0
	err = n.EachKept(func(Lease) bool { listed++; return true })
	if err != nil || listed != kept {
		return fmt.Errorf("%d addresses are kept, %d listed as such, %w", kept, listed, err)
	}
	var broken error
	err = n.EachAttachment(func(a Attachment) {
		held, err := n.Held(a)
		if listed += len(held); err != nil || len(held) == 0 {
			broken = fmt.Errorf("%v: %d leases, %w", a, len(held), err)
		}
	})
	if err != nil || broken != nil {
		return fmt.Errorf("%w, %w", err, broken)
	}
	if listed != len(leased) {
		return fmt.Errorf("%d leases, %d of which are listed", len(leased), listed)
	}
	queued := 0
	var last *records.Pool
	err = n.EachPool(func(p *records.Pool) {
		if last != nil && !last.End.Less(p.Start) {
			broken = fmt.Errorf("pools up to %s and %s overlap", last.End, p.End)
		}
		last = p
		queued += int(p.Queued)
		if err := checkPool(p, leased, addresses, queue); err != nil {
			broken = err
		}
	})
	if broken != nil {
		err = broken
	}
	if found := queue.Stats().KeyN; err == nil && found != queued {
		err = fmt.Errorf("pools count %d free addresses in their queues, which hold %d", queued, found)
	}
	return err
}

// checkPool compares a pool with the leases and the free queue. If the pool is small, it checks
// every address of the pool.
func checkPool(p *records.Pool, leased map[netip.Addr]Attachment, addresses, queue *bolt.Bucket) error {
	free := map[netip.Addr]int{}
	end := p.End.As16()
	c := queue.Cursor()
	for k, v := c.Seek(end[:]); bytes.HasPrefix(k, end[:]); k, v = c.Next() {
		if record := addresses.Get(v); !bytes.Equal(record, k[len(end):]) {
			return fmt.Errorf("%x does not have its position in the free queue", v)
		}
		free[netip.AddrFrom16([16]byte(v)).Unmap()]++
	}
	if len(free) != int(p.Queued) {
		return fmt.Errorf("%d addresses are in the free queue, counted as %d", len(free), p.Queued)
	}
	count, r := uint64(0), p.Range()
	for a := p.Start; ranges.Between(p.Start, a, p.End) && r.Size() < 1<<17; a = a.Next() {
		key := a.As16()
		if p.Unused.IsValid() && !a.Less(p.Unused) && addresses.Get(key[:]) == nil {
			free[a]++
		}
		_, held := leased[a]
		switch {
		case a == p.Gateway:
		case held:
			count++
		case free[a] != 1:
			return fmt.Errorf("%s is free %d times", a, free[a])
		}
	}
	if r.Size() < 1<<17 && count != p.Leased {
		return fmt.Errorf("%s: %d leases, counted as %d", r, count, p.Leased)
	}
	return nil
}
