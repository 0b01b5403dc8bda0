package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// guesses is the number of blocks that Claim tries before it reads the list of all blocks.
	guesses = 8
	// pause is the longest time that Claim waits between two attempts.
	pause = 50 * time.Millisecond
)

var (
	// ErrFull means that all blocks of the pool have owners.
	ErrFull = errors.New("every block of the pool has an owner")
	// ErrTaken means that a block has an owner.
	ErrTaken = errors.New("belongs to host")
)

// Claim makes the member the owner of one more block, and returns the block. It tries the blocks in
// the given order. If the first blocks are taken, Claim reads the list of all blocks once. The
// error may be ErrFull, ErrSize, ErrNewer or ErrUnheard.
func (m *Member) Claim(ctx context.Context, candidates iter.Seq[netip.Prefix]) (Block, error) {
	tried := 0
	var taken map[string]bool
	for b := range candidates {
		if tried == guesses && taken == nil {
			var err error
			if taken, err = m.taken(ctx); err != nil {
				return Block{}, err
			}
		}
		if taken[m.blockKey(b)] {
			continue
		}
		claimed, err := m.claim(ctx, b)
		if err == nil || !errors.Is(err, ErrTaken) {
			return claimed, err
		}
		tried++
		if err := wait(ctx); err != nil {
			return Block{}, err
		}
	}
	if freed, err := m.endGraces(ctx); err != nil || !freed {
		return Block{}, cmp.Or(err, ErrFull)
	}
	return m.Claim(ctx, candidates)
}

// ClaimBlock makes the member the owner of a particular block. If the block has an owner, the error is
// ErrTaken, and names the owner. The other errors are those of Claim.
func (m *Member) ClaimBlock(ctx context.Context, b netip.Prefix) (Block, error) {
	claimed, err := m.claim(ctx, b)
	if !errors.Is(err, ErrTaken) {
		return claimed, err
	}
	var owner blockValue
	answer, err := m.KV.Get(ctx, m.blockKey(b))
	if err == nil {
		_, err = decode(answer.Kvs, &owner)
	}
	other := removerOf(m.KV, m.Prefix, Owner{owner.Host, owner.Network})
	if err == nil {
		var over bool
		if over, _, err = other.endGrace(ctx); over {
			return m.claim(ctx, b)
		}
	}
	var record recordValue
	if err == nil {
		answer, err = m.KV.Get(ctx, other.key("hosts"))
	}
	if err == nil {
		_, err = decode(answer.Kvs, &record)
	}
	if err != nil {
		return Block{}, fmt.Errorf("look for the owner of block %s: %w", b, err)
	}
	return Block{}, fmt.Errorf("block %s %w %q (ID %s, network %s)", b, ErrTaken, record.Name, owner.Host, owner.Network)
}

// taken returns the keys of all blocks that have an owner.
func (m *Member) taken(ctx context.Context) (map[string]bool, error) {
	list, err := m.KV.Get(ctx, Key(m.Prefix, "blocks/"), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, fmt.Errorf("list the blocks of the pool: %w", err)
	}
	taken := map[string]bool{}
	for _, kv := range list.Kvs {
		taken[string(kv.Key)] = true
	}
	return taken, nil
}

// claim makes the member the owner of a block. The error may be ErrTaken, without the owner.
func (m *Member) claim(ctx context.Context, b netip.Prefix) (Block, error) {
	revision := m.revision
	if m.revision = 0; revision == 0 {
		return Block{}, fmt.Errorf("claim block %s: %w", b, ErrUnheard)
	}
	mine := clientv3.Compare(clientv3.ModRevision(m.key("hosts")), "=", revision)
	for range 2 { // the first claim of a pool is refused, because the pool has no block size yet
		answer, err := m.KV.Txn(ctx).If(mine,
			clientv3.Compare(clientv3.CreateRevision(m.blockKey(b)), "=", 0),
			clientv3.Compare(clientv3.Value(m.sizeKey(b)), "=", sizeOf(b)),
		).Then(
			clientv3.OpPut(m.blockKey(b), encode(blockValue{format, m.Host, m.Network})),
			clientv3.OpPut(m.ownedPrefix()+b.String(), encode(ownedValue{format, now()})),
		).Else(clientv3.OpGet(m.key("hosts")), clientv3.OpGet(m.blockKey(b)), clientv3.OpGet(m.sizeKey(b))).Commit()
		if err != nil {
			return Block{}, fmt.Errorf("claim block %s: %w", b, err)
		}
		if answer.Succeeded {
			m.revision = revision
			return Block{b, answer.Header.Revision}, nil
		}
		if err = m.whyRefused(b, revision, answer); errors.Is(err, ErrTaken) {
			m.revision = revision
		}
		if err != nil {
			return Block{}, err
		}
		_, err = m.KV.Txn(ctx).If(mine, clientv3.Compare(clientv3.CreateRevision(m.sizeKey(b)), "=", 0)).
			Then(clientv3.OpPut(m.sizeKey(b), sizeOf(b))).Commit()
		if err != nil {
			return Block{}, fmt.Errorf("write the block size of the pool: %w", err)
		}
	}
	return Block{}, fmt.Errorf("claim block %s: etcd has changed meanwhile: %w", b, ErrUnheard)
}

// sizeOf returns the value of the key with the size of the pool's blocks.
func sizeOf(b netip.Prefix) string { return encode(sizeValue{format, b.Bits()}) }

// whyRefused returns the reason why etcd has refused a claim. It returns nil if the pool has no
// block size yet.
func (m *Member) whyRefused(b netip.Prefix, revision int64, answer *clientv3.TxnResponse) error {
	record := answer.Responses[0].GetResponseRange().Kvs
	block := answer.Responses[1].GetResponseRange().Kvs
	size := answer.Responses[2].GetResponseRange().Kvs
	sized, err := decode(size, &sizeValue{})
	switch {
	case len(record) == 0 || record[0].ModRevision != revision:
		return fmt.Errorf("claim block %s: etcd has changed meanwhile: %w", b, ErrUnheard)
	case err != nil:
		return err
	case sized && string(size[0].Value) != sizeOf(b):
		return fmt.Errorf("claim block %s: %w: etcd key %s is %s, and this host's value is %s; configure the same size on all hosts",
			b, ErrSize, m.sizeKey(b), size[0].Value, sizeOf(b))
	case len(block) > 0:
		return ErrTaken
	}
	return nil
}

// wait waits for a random time, so that hosts that have tried the same block do not try the next one
// at the same time.
func wait(ctx context.Context) error {
	select {
	case <-time.After(rand.N(pause)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
