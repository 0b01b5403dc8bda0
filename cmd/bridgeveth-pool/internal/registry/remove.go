package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// graceTime is how long the blocks of a forgotten host have no new owner. It is longer than
	// ipam.OfflineTime, by more than the clocks of two machines can differ: docs/pool.md.
	graceTime = 25 * time.Hour
	// batch is the number of blocks in one transaction. etcd allows 128 operations.
	batch = 50
)

var (
	// ErrAlive means that the service of a host runs.
	ErrAlive = errors.New("the host is alive")
	// errMeanwhile means that another process has changed the keys of a host.
	errMeanwhile = errors.New("the host or another command has changed etcd meanwhile; run the command again")
)

// remover takes the blocks from a network of a host, which is another host than this one.
type remover struct {
	Member // of the other host
}

// removerOf returns the remover of a network of a host.
func removerOf(kv clientv3.KV, prefix string, of Owner) *remover {
	return &remover{Member{KV: kv, Prefix: prefix, Host: of.Host, Network: of.Network}}
}

// fencedValue is the value of the key fenced/HOST/NETWORK.
type fencedValue struct {
	Version int    `json:"version"`
	Name    string `json:"name,omitempty"` // host name, for people
	Time    string `json:"time,omitempty"` // of the deletion of the record, for people
	// Grace says that the grace time has begun. The time is over when there is no key
	// grace/HOST/NETWORK, which has an etcd lease.
	Grace bool `json:"grace,omitempty"`
}

// Release takes the blocks from a network of a host that is down, and deletes the host's record. It
// returns the number of blocks. If it is interrupted, the host still has a record, and the next
// Release continues. The error may be ErrAlive or ErrFenced.
func Release(ctx context.Context, kv clientv3.KV, prefix string, of Owner) (count int, err error) {
	r := removerOf(kv, prefix, of)
	answer, err := kv.Txn(ctx).Then(clientv3.OpGet(r.key("hosts")), clientv3.OpGet(r.key("alive")), clientv3.OpGet(r.key("fenced"))).Commit()
	if err != nil {
		return 0, fmt.Errorf("read record of host %s: %w", of.Host, err)
	}
	var record recordValue
	record.Version = format
	before := answer.Responses[0].GetResponseRange().Kvs
	if _, err := decode(before, &record); err != nil {
		return 0, err
	}
	switch {
	case answer.Responses[1].GetResponseRange().Count > 0:
		return 0, r.alive()
	case answer.Responses[2].GetResponseRange().Count > 0:
		return 0, fmt.Errorf("host %s, network %s: %w; its blocks have no owner when the grace time of 25 hours is over", of.Host, of.Network, ErrFenced)
	}
	revision := int64(0)
	if len(before) > 0 {
		revision = before[0].ModRevision
	}
	// The new token makes all requests of the host fail that are still on their way.
	record.Token, record.Time = rand.Text(), now()
	dead := clientv3.Compare(clientv3.CreateRevision(r.key("alive")), "=", 0)
	changed, err := kv.Txn(ctx).If(dead, clientv3.Compare(clientv3.ModRevision(r.key("hosts")), "=", revision)).Then(clientv3.OpPut(r.key("hosts"), encode(record))).Commit()
	if err == nil && !changed.Succeeded {
		err = errMeanwhile
	}
	if err != nil {
		return 0, fmt.Errorf("change record of host %s: %w", of.Host, err)
	}
	return r.take(ctx, []clientv3.Cmp{dead, clientv3.Compare(clientv3.ModRevision(r.key("hosts")), "=", changed.Header.Revision)}, clientv3.OpDelete(r.key("hosts")))
}

// alive returns ErrAlive with a remedy.
func (r *remover) alive() error {
	return fmt.Errorf("host %s, network %s: %w (etcd key %s); stop bridgeveth-pool on that host, or wait for a minute after the host has ended", r.Host, r.Network, ErrAlive, r.key("alive"))
}

// take deletes the keys of all blocks in the host's list, and then does the last step. Each transaction
// fails if a comparison fails. A block that belongs to another host stays.
func (r *remover) take(ctx context.Context, same []clientv3.Cmp, last clientv3.Op) (count int, err error) {
	for {
		list, err := r.KV.Get(ctx, r.ownedPrefix(), clientv3.WithPrefix(), clientv3.WithLimit(batch))
		if err != nil {
			return count, fmt.Errorf("list the blocks of host %s: %w", r.Host, err)
		}
		steps, conditions, taken := []clientv3.Op{last}, same[:len(same):len(same)], 0
		if len(list.Kvs) > 0 {
			steps = nil
		}
		for _, kv := range list.Kvs {
			b, err := parseBlock(kv, string(kv.Key)[len(r.ownedPrefix()):])
			if err != nil {
				return count, err
			}
			key := r.blockKey(b)
			block, err := r.KV.Get(ctx, key)
			var owner blockValue
			if err == nil {
				_, err = decode(block.Kvs, &owner)
			}
			if err != nil {
				return count, fmt.Errorf("read owner of block %s: %w", b, err)
			}
			steps = append(steps, clientv3.OpDelete(string(kv.Key)))
			if owner.Host == r.Host && owner.Network == r.Network {
				conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", block.Kvs[0].ModRevision))
				steps = append(steps, clientv3.OpDelete(key))
				taken++
			}
		}
		answer, err := r.KV.Txn(ctx).If(conditions...).Then(steps...).Commit()
		if err == nil && !answer.Succeeded {
			err = errMeanwhile
		}
		if err != nil {
			return count, fmt.Errorf("take the blocks from host %s: %w", r.Host, err)
		}
		if count += taken; len(list.Kvs) == 0 {
			return count, nil
		}
	}
}

// Forget deletes the record of a network of a host. When the grace time is over, the blocks have no
// owner. Until then, Forget returns the rest of the grace time. Later, it returns the number of blocks
// that it has taken from the host. The error may be ErrAlive.
func Forget(ctx context.Context, c *clientv3.Client, prefix string, of Owner) (left time.Duration, count int, err error) {
	r := removerOf(c.KV, prefix, of)
	answer, err := c.Txn(ctx).Then(clientv3.OpGet(r.key("hosts")), clientv3.OpGet(r.key("alive")), clientv3.OpGet(r.key("fenced"))).Commit()
	if err != nil {
		return 0, 0, fmt.Errorf("read record of host %s: %w", of.Host, err)
	}
	record := recordValue{}
	before := answer.Responses[0].GetResponseRange().Kvs
	if _, err := decode(before, &record); err != nil {
		return 0, 0, err
	}
	if answer.Responses[2].GetResponseRange().Count == 0 {
		if answer.Responses[1].GetResponseRange().Count > 0 {
			return 0, 0, r.alive()
		}
		revision := int64(0)
		if len(before) > 0 {
			revision = before[0].ModRevision
		}
		answer, err := c.Txn(ctx).If(
			clientv3.Compare(clientv3.ModRevision(r.key("hosts")), "=", revision),
			clientv3.Compare(clientv3.CreateRevision(r.key("alive")), "=", 0), clientv3.Compare(clientv3.CreateRevision(r.key("fenced")), "=", 0),
		).Then(clientv3.OpDelete(r.key("hosts")), clientv3.OpPut(r.key("fenced"), encode(fencedValue{Version: format, Name: record.Name, Time: now()}))).Commit()
		if err == nil && !answer.Succeeded {
			err = errMeanwhile
		}
		if err != nil {
			return 0, 0, fmt.Errorf("delete record of host %s: %w", of.Host, err)
		}
	}
	if err := r.beginGrace(ctx, c); err != nil {
		return 0, 0, err
	}
	grace, err := c.Get(ctx, r.key("grace"))
	if err == nil && len(grace.Kvs) > 0 {
		lease, err := c.TimeToLive(ctx, clientv3.LeaseID(grace.Kvs[0].Lease))
		if err != nil {
			return 0, 0, fmt.Errorf("read the grace time: %w", err)
		}
		return max(1, time.Duration(lease.TTL)) * time.Second, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read the grace time: %w", err)
	}
	_, count, err = r.endGrace(ctx)
	return 0, count, err
}

// beginGrace begins the grace time of a forgotten host, unless it has begun. The etcd lease is made after
// the record was deleted: a request to delete the record may take any time.
func (r *remover) beginGrace(ctx context.Context, c *clientv3.Client) error {
	answer, err := c.Get(ctx, r.key("fenced"))
	var fenced fencedValue
	if err == nil {
		_, err = decode(answer.Kvs, &fenced)
	}
	if err != nil || fenced.Grace || len(answer.Kvs) == 0 {
		return err
	}
	lease, err := c.Grant(ctx, int64(graceTime/time.Second))
	if err != nil {
		return fmt.Errorf("make the etcd lease of the grace time: %w", err)
	}
	fenced.Grace = true
	_, err = c.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(r.key("fenced")), "=", answer.Kvs[0].ModRevision)).Then(
		clientv3.OpPut(r.key("fenced"), encode(fenced)),
		clientv3.OpPut(r.key("grace"), encode(plainValue{format}), clientv3.WithLease(lease.ID)),
	).Commit()
	if err != nil {
		return fmt.Errorf("begin the grace time: %w", err)
	}
	return nil
}

// endGrace takes the blocks from a forgotten host if the grace time is over, and reports whether it is. A
// host that is not forgotten loses nothing.
func (r *remover) endGrace(ctx context.Context) (over bool, count int, err error) {
	answer, err := r.KV.Txn(ctx).Then(clientv3.OpGet(r.key("fenced")), clientv3.OpGet(r.key("grace"), clientv3.WithCountOnly())).Commit()
	if err != nil {
		return false, 0, fmt.Errorf("read the grace time of host %s: %w", r.Host, err)
	}
	var fenced fencedValue
	keys := answer.Responses[0].GetResponseRange().Kvs
	found, err := decode(keys, &fenced)
	if err != nil || !found || !fenced.Grace || answer.Responses[1].GetResponseRange().Count > 0 {
		return false, 0, err
	}
	count, err = r.take(ctx, []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(r.key("fenced")), "=", keys[0].ModRevision),
		clientv3.Compare(clientv3.CreateRevision(r.key("grace")), "=", 0),
	}, clientv3.OpDelete(r.key("fenced")))
	return err == nil, count, err
}

// endGraces takes the blocks from all forgotten hosts whose grace time is over, and reports whether there
// was one.
func (m *Member) endGraces(ctx context.Context) (any bool, err error) {
	prefix := Key(m.Prefix, "fenced/")
	for kv, err := range each(ctx, m.KV, prefix) {
		if err != nil {
			return any, fmt.Errorf("list the forgotten hosts: %w", err)
		}
		over, _, err := removerOf(m.KV, m.Prefix, ownerIn(string(kv.Key)[len(prefix):])).endGrace(ctx)
		if errors.Is(err, errMeanwhile) {
			over, err = true, nil // another host takes the blocks at the same time
		}
		if err != nil {
			return any, err
		}
		any = any || over
	}
	return any, nil
}
