package poolsim

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// fewBlocks is the greatest size of a pool of which the run claims all blocks at the end.
const fewBlocks = 1 << 10

// check compares etcd with the stores of the hosts, and hands out all addresses of all blocks.
func (r *run) check() {
	owner := r.owners()
	r.followed()
	for _, h := range r.hosts {
		for b := range h.leased {
			if got := r.claims.host(b); got != h.id {
				r.problem("host %s has leased addresses of block %s, revision %d, which etcd has given to host %q", h.id, b.Subnet, b.Revision, got)
			}
		}
	}
	r.compare(owner)
	blocks := 1 << (blockBits - r.set[0].Subnet.Bits())
	r.measured.blocks, r.measured.owned = blocks, len(owner)
	if blocks <= fewBlocks {
		r.claimAll()
		if owner = r.owners(); len(owner) != blocks {
			r.problem("the hosts could claim %d of %d blocks", len(owner), blocks)
		}
	}
	r.exhaust(owner)
}

// owners returns the owner of each block in etcd. The two keys of a block must agree.
func (r *run) owners() map[netip.Prefix]string {
	owner := map[netip.Prefix]string{}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, kind := range []string{"owned/", "blocks/"} {
		list, err := r.admin.Get(ctx, prefix+"/v1/"+kind, clientv3.WithPrefix())
		if err != nil {
			r.t.Fatal(err)
		}
		for _, kv := range list.Kvs {
			rest := strings.TrimPrefix(string(kv.Key), prefix+"/v1/"+kind)
			if kind == "owned/" {
				part := strings.SplitN(rest, "/", 3)
				owner[netip.MustParsePrefix(part[2])] = part[0]
			} else if host := owner[netip.MustParsePrefix(rest)]; host == "" || !strings.Contains(string(kv.Value), `"host":"`+host+`"`) {
				r.problem("etcd key %s is %s, and the key of the owner is that of host %q", kv.Key, kv.Value, host)
			}
		}
		if len(owner) != len(list.Kvs) {
			r.problem("etcd has %d keys %s for %d blocks", len(list.Kvs), kind, len(owner))
		}
	}
	return owner
}

// followed waits until the watch has seen all changes.
func (r *run) followed() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, err := r.admin.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend), clientv3.WithLimit(1))
	if err != nil {
		r.t.Fatal(err)
	}
	for r.claims.seen() < list.Kvs[0].ModRevision {
		if ctx.Err() != nil {
			r.t.Fatalf("the watch of etcd ends at revision %d, want %d", r.claims.seen(), list.Kvs[0].ModRevision)
		}
		sleep(ctx, 10*time.Millisecond)
	}
}

// compare compares the blocks in the stores with those in etcd.
func (r *run) compare(owner map[netip.Prefix]string) {
	known := 0
	for _, h := range r.hosts {
		if h.lost {
			continue
		}
		_, list, _, err := h.stock().Low()
		if err != nil {
			r.problem("store of host %s: %v", h.id, err)
		}
		for _, b := range list {
			if known++; owner[b.Subnet] != h.id {
				r.problem("host %s has block %s, which belongs to host %q", h.id, b.Subnet, owner[b.Subnet])
			}
		}
	}
	if known != len(owner) {
		r.problem("%d blocks have an owner, and the hosts know %d of them", len(owner), known)
	}
}

// claimAll lets the hosts claim all blocks of the pool that have no owner, at the same time.
func (r *run) claimAll() {
	r.each(few, func(h *host) {
		if h.lost {
			return
		}
		s := h.stock()
		s.Spare = fewBlocks
		err := context.DeadlineExceeded
		for errors.Is(err, context.DeadlineExceeded) { // one Fill may have no time for all blocks
			err = fill(context.Background(), s)
		}
		if !errors.Is(err, registry.ErrFull) {
			r.problem("host %s claims all blocks: %v, want %v", h.id, err, registry.ErrFull)
		}
	})
}

// exhaust hands out all addresses of the blocks that have an owner. Each address must be there exactly
// once.
func (r *run) exhaust(owner map[netip.Prefix]string) {
	r.each(few, func(h *host) {
		if h.lost {
			return
		}
		store, err := ipam.Open(h.dir, storeWait)
		if err != nil {
			r.problem("store of host %s: %v", h.id, err)
			return
		}
		for {
			h.next++
			c := container{id: fmt.Sprintf("%s-%d", h.id, h.next)}
			leases, err := store.Reserve(request(r.set, c.id))
			if err != nil && !errors.Is(err, ipam.ErrExhausted) {
				r.problem("host %s: %v", h.id, err)
			}
			if err != nil {
				break
			}
			if other := r.ledger.add(leases[0].Address.Addr(), c.id); other != "" {
				r.problem("%s has got %s, which %s has", c.id, leases[0].Address, other)
			}
		}
		if err := store.Close(); err != nil {
			r.problem("store of host %s: %v", h.id, err)
		}
	})
	want := 0
	for b := range owner {
		for a := b.Addr(); b.Contains(a); a = a.Next() {
			if r.set[0].Contains(a) {
				want++
			}
		}
	}
	if got := len(r.ledger.holder); got != want {
		r.problem("%d addresses could be handed out, and the %d blocks have %d", got, len(owner), want)
	}
}
