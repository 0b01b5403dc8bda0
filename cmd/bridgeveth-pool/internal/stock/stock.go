// Package stock keeps blocks in the store of this host, so that ADD finds addresses without etcd.
//
// Start with Fill.
package stock

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/blocks"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/pkg/files"
	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// lockWait is how long a process waits for a lock: that of the store, or that of another process
// that fills the stock.
const lockWait = 10 * time.Second

// Stock is the blocks of one network of this host.
type Stock struct {
	Member registry.Member
	Pools  []blocks.Pool // of each set of ranges
	Spare  int           // number of blocks of each set that Fill keeps without a lease
	Dir    string        // folder of the store
	// Lease is the etcd lease of a running service, or 0. While it lasts, etcd refuses other
	// machines with the identity of this host.
	Lease clientv3.LeaseID

	restored   bool                         // Hear has said so, and Fill has not recorded the blocks since then
	alive      clientv3.LeaseID             // the Lease for which StayAlive has succeeded
	emptySince map[ipam.Block]time.Duration // for each block without a lease: the time at which look has first seen it so
}

// Fill hears from etcd, records the result in the store, returns blocks that were without a lease for
// long (giveback.go), and claims blocks until Spare blocks of each set have no lease. A block is in
// the store only after etcd has answered. If the process is killed in between, the next Fill finds
// the block. One process of the host at a time fills the stock of a network: the others wait. The
// error may be one of package registry.
//
// Fill first claims the blocks of the given addresses. A block that another host owns does not keep
// Fill from the other claims. The error is then registry.ErrTaken, or ErrLost (restored.go).
func (s *Stock) Fill(ctx context.Context, addresses ...netip.Addr) error {
	lock, err := Lock(s.Dir, s.Member.Network)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	before, known, err := s.stored()
	if err != nil {
		return err
	}
	heard, err := s.Member.Hear(ctx)
	if s.Member.HeardInBoot && (errors.Is(err, registry.ErrClone) || errors.Is(err, registry.ErrFenced)) {
		return errors.Join(err, s.record(heard.Sent, nil)) // ADD must not use the blocks any more
	}
	if err != nil {
		return err
	}
	if s.restored = s.restored || heard.Restored; s.restored && known {
		if heard.Blocks, err = s.returnAgain(ctx, heard.Blocks, before); err != nil {
			return err
		}
	}
	var list []ipam.Block
	for _, b := range heard.Blocks {
		list = append(list, ipam.Block{Subnet: b.Prefix, Revision: b.Revision})
	}
	if err := s.record(heard.Sent, list); err != nil {
		return err
	}
	s.restored = false
	if s.Lease != s.alive {
		if err := s.Member.StayAlive(ctx, s.Lease); err != nil {
			return err
		}
		s.alive = s.Lease
	}
	list, lost, err := s.claimLeased(ctx, heard.Sent, list)
	if err != nil {
		return err
	}
	list, taken, err := s.claimFor(ctx, heard.Sent, list, addresses)
	if err == nil {
		list, err = s.giveBack(ctx, list)
	}
	for _, pool := range s.Pools {
		if err == nil {
			list, err = s.claim(ctx, pool, heard.Sent, list)
		}
	}
	return errors.Join(lost, taken, err)
}

// claimFor claims the blocks of addresses, if the list does not contain these blocks. It returns all
// blocks of the host. The error taken is registry.ErrTaken, or says that no container can have the
// address.
func (s *Stock) claimFor(ctx context.Context, heard time.Duration, list []ipam.Block, addresses []netip.Addr) (all []ipam.Block, taken, err error) {
	for _, a := range addresses {
		var subnet netip.Prefix
		for _, pool := range s.Pools {
			if b, ok := pool.Of(a); ok {
				subnet = b
			}
		}
		if !subnet.IsValid() {
			taken = errors.Join(taken, fmt.Errorf("address %s: no container of the network can have this address; request an address of the ranges", a))
			continue
		}
		if slices.ContainsFunc(list, func(o ipam.Block) bool { return o.Subnet == subnet }) {
			continue
		}
		b, err := s.Member.ClaimBlock(ctx, subnet)
		if err == nil {
			list = append(list, ipam.Block{Subnet: b.Prefix, Revision: b.Revision})
			err = s.record(heard, list)
		} else if err = fmt.Errorf("address %s: %w", a, err); errors.Is(err, registry.ErrTaken) {
			taken, err = errors.Join(taken, err), nil
		}
		if err != nil {
			return list, taken, err
		}
	}
	return list, taken, nil
}

// Lock waits until no other process changes the blocks of a network of this host, in etcd or in the
// store below dir. Other processes wait until Unlock.
func Lock(dir, network string) (*flock.Lock, error) {
	folder := filepath.Join(dir, "pool", network)
	if err := files.MakeFolder(folder); err != nil {
		return nil, err
	}
	return flock.Acquire(folder, flock.Exclusive, lockWait)
}

// Low reports whether fewer than Spare blocks of a set have no lease, so that Fill would claim one. It
// does not call etcd. It returns the blocks in the store and the time at which etcd was last heard:
// a result of ipam.SinceBoot.
func (s *Stock) Low() (low bool, list []ipam.Block, heard time.Duration, err error) {
	err = s.withStore(func(store *ipam.Store) (err error) {
		heard, list, _, err = store.Blocks(s.Member.Network)
		return err
	})
	if err != nil {
		return false, nil, 0, err
	}
	empty, err := s.look()
	for _, pool := range s.Pools {
		low = low || count(pool, empty) < s.Spare
	}
	return low && err == nil, list, heard, err
}

// Room returns for how many more containers the host's blocks have addresses.
func (s *Stock) Room() (containers uint64, err error) {
	var sets []ipam.Set
	for _, pool := range s.Pools {
		sets = append(sets, pool.Set)
	}
	err = s.withStore(func(store *ipam.Store) (err error) {
		containers, err = store.Room(s.Member.Network, sets)
		return err
	})
	return containers, err
}

// claim claims blocks of a pool until Spare blocks have no lease. It returns all blocks of the host.
func (s *Stock) claim(ctx context.Context, pool blocks.Pool, heard time.Duration, list []ipam.Block) ([]ipam.Block, error) {
	empty, err := s.look()
	for have := count(pool, empty); err == nil && have < s.Spare; have++ {
		var b registry.Block
		if b, err = s.Member.Claim(ctx, s.candidates(pool, list)); err == nil {
			list = append(list, ipam.Block{Subnet: b.Prefix, Revision: b.Revision})
			err = s.record(heard, list)
		}
	}
	return list, err
}

// candidates returns the blocks of a pool that are not in the list, in the order in which this host
// tries them.
func (s *Stock) candidates(pool blocks.Pool, list []ipam.Block) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for b := range pool.From(s.Member.Host + " " + s.Member.Network) {
			own := slices.ContainsFunc(list, func(o ipam.Block) bool { return o.Subnet == b })
			if !own && !yield(b) {
				return
			}
		}
	}
}

// count returns the number of blocks in the list that belong to a pool.
func count(pool blocks.Pool, list []ipam.Block) (n int) {
	for _, b := range list {
		if pool.Contains(b.Subnet) {
			n++
		}
	}
	return n
}

// record writes the blocks of the host into the store.
func (s *Stock) record(heard time.Duration, list []ipam.Block) error {
	return s.withStore(func(store *ipam.Store) error { return store.SetBlocks(s.Member.Network, heard, list) })
}

// withStore calls use with the store. The store is not locked while the process waits for etcd.
func (s *Stock) withStore(use func(*ipam.Store) error) error {
	store, err := ipam.Open(s.Dir, lockWait)
	if err != nil {
		return err
	}
	return errors.Join(use(store), store.Close())
}
