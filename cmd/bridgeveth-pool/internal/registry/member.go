// Package registry reads and writes the keys of docs/pool.md in etcd: which host owns which block.
//
// Start with Member. member.go has the steps of the protocol, keys.go the keys and their values.
package registry

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

var (
	// ErrClone means that another machine uses the identity of this host.
	ErrClone = errors.New("another machine has the identity of this host")
	// ErrFenced means that somebody has deleted the record of this host.
	ErrFenced = errors.New("the record of this host was deleted")
	// ErrSize means that the blocks of the pool have another size.
	ErrSize = errors.New("the blocks of the pool have another size")
	// ErrUnheard means that the member must call Hear first. The reason is that the result of the
	// last request is not known, or that the member's record has changed.
	ErrUnheard = errors.New("hear from etcd first")
)

// hearAttempts limits how often Hear reads a record that changes meanwhile.
const hearAttempts = 3

// Member is one network of one host. One process at a time may use a Member of the same host and
// network.
type Member struct {
	KV      clientv3.KV
	Prefix  string // such as /bridgeveth
	Host    string // the identity of the host
	Network string
	Name    string // the name of the host, for people
	Boot    string // the ID of the boot
	// HeardInBoot says that Hear has succeeded before in this boot. If the record then contains
	// another boot, another machine has written the record.
	HeardInBoot bool
	// Seen is the greatest revision that etcd has answered in this boot, as far as the caller and Hear know.
	// Only an etcd that was restored from a backup answers a smaller one.
	Seen int64

	revision int64 // of the record that the last Hear has written; 0 if Hear must be called
}

// Block is a block that the member owns.
type Block struct {
	Prefix   netip.Prefix
	Revision int64 // the revision of etcd at which the member claimed the block
}

// Heard is the result of Hear.
type Heard struct {
	// Sent is the time of CLOCK_BOOTTIME at which the request was sent. The clock also counts the
	// time while the host is suspended.
	Sent   time.Duration
	Blocks []Block // all blocks of the member
	// Restored says that etcd was restored from a backup. Hosts may have claimed or returned blocks
	// since the backup.
	Restored bool
}

// Hear writes a new record of the member, and returns the member's blocks. All earlier requests of
// this member fail from then on, even if they arrive later. The error may be ErrClone, ErrFenced or
// ErrNewer.
func (m *Member) Hear(ctx context.Context) (Heard, error) {
	m.revision = 0
	for range hearAttempts {
		before, err := m.readRecord(ctx)
		if errors.Is(err, ErrFenced) {
			if over, _, failed := (&remover{*m}).endGrace(ctx); over || failed != nil {
				if failed != nil {
					return Heard{}, errors.Join(err, failed)
				}
				continue
			}
		}
		if err != nil {
			return Heard{}, err
		}
		value := encode(recordValue{format, m.Name, m.Boot, rand.Text(), now()})
		sent, err := bootTime()
		if err != nil {
			return Heard{}, err
		}
		answer, err := m.KV.Txn(ctx).If(before...).Then(
			clientv3.OpPut(m.key("hosts"), value),
			clientv3.OpGet(m.ownedPrefix(), clientv3.WithPrefix()),
		).Commit()
		if err != nil {
			return Heard{}, fmt.Errorf("write record of this host: %w", err)
		}
		if answer.Succeeded {
			blocks, err := m.blocks(answer.Responses[1].GetResponseRange().Kvs)
			if err != nil {
				return Heard{}, err
			}
			restored := answer.Header.Revision <= m.Seen
			m.revision, m.HeardInBoot, m.Seen = answer.Header.Revision, true, answer.Header.Revision
			return Heard{sent, blocks, restored}, nil
		}
	}
	return Heard{}, fmt.Errorf("etcd key %s: another process changed the key during each of %d attempts; end that process", m.key("hosts"), hearAttempts)
}

// readRecord checks that the member may write its record. It returns the comparisons that make the
// write fail if the record changes meanwhile.
func (m *Member) readRecord(ctx context.Context) ([]clientv3.Cmp, error) {
	keys := []string{m.key("hosts"), m.key("alive"), m.key("fenced")}
	var gets []clientv3.Op
	for _, key := range keys {
		gets = append(gets, clientv3.OpGet(key))
	}
	answer, err := m.KV.Txn(ctx).Then(gets...).Commit()
	if err != nil {
		return nil, fmt.Errorf("read record of this host: %w", err)
	}
	var same []clientv3.Cmp
	var found [][]*mvccpb.KeyValue
	for i, key := range keys {
		kvs := answer.Responses[i].GetResponseRange().Kvs
		revision := int64(0)
		if len(kvs) > 0 {
			revision = kvs[0].ModRevision
		}
		found, same = append(found, kvs), append(same, clientv3.Compare(clientv3.ModRevision(key), "=", revision))
	}
	var record recordValue
	var alive aliveValue
	recorded, err := decode(found[0], &record)
	if err != nil {
		return nil, err
	}
	living, err := decode(found[1], &alive)
	// After a restore, keys of an earlier boot of this host can appear again.
	recorded = recorded && found[0][0].ModRevision > m.Seen
	living = living && found[1][0].ModRevision > m.Seen
	switch {
	case err != nil:
		return nil, err
	case len(found[2]) > 0:
		return nil, fmt.Errorf("%w (etcd key %s); this host gets blocks again when the grace time of 25 hours is over", ErrFenced, keys[2])
	case recorded && record.Boot != m.Boot && m.HeardInBoot, living && alive.Boot != m.Boot:
		return nil, fmt.Errorf("%w: etcd keys %s and %s are of boot %s of host %q, and this is boot %s; if this host was not rebooted within the last minute, give each machine its own /etc/machine-id and reboot",
			ErrClone, keys[0], keys[1], cmp.Or(alive.Boot, record.Boot), record.Name, m.Boot)
	}
	return same, nil
}

// blocks returns the blocks in the list of the member's blocks.
func (m *Member) blocks(keys []*mvccpb.KeyValue) (list []Block, err error) {
	for _, kv := range keys {
		if err := decodeValue(kv, &ownedValue{}); err != nil {
			return nil, err
		}
		b, err := parseBlock(kv, strings.TrimPrefix(string(kv.Key), m.ownedPrefix()))
		if err != nil {
			return nil, err
		}
		list = append(list, Block{b, kv.CreateRevision})
	}
	return list, nil
}

// StayAlive creates the key that makes Hear refuse other machines with the identity of this host.
// The key exists until the etcd lease ends. The error may be ErrUnheard.
func (m *Member) StayAlive(ctx context.Context, lease clientv3.LeaseID) error {
	return m.step(ctx, "write the key of the running service", nil,
		clientv3.OpPut(m.key("alive"), encode(aliveValue{format, m.Boot}), clientv3.WithLease(lease)))
}

// Return gives a block back. The block must have no lease, and the store must not use it any more.
// The error may be ErrUnheard.
func (m *Member) Return(ctx context.Context, b Block) error {
	return m.step(ctx, "return block "+b.Prefix.String(), []clientv3.Cmp{
		clientv3.Compare(clientv3.CreateRevision(m.blockKey(b.Prefix)), "=", b.Revision),
	}, clientv3.OpDelete(m.blockKey(b.Prefix)), clientv3.OpDelete(m.ownedPrefix()+b.Prefix.String()))
}

// step makes a transaction that fails if the member's record has changed, or if a comparison fails.
// After an error, the member must call Hear. The error names the step.
func (m *Member) step(ctx context.Context, name string, same []clientv3.Cmp, ops ...clientv3.Op) error {
	revision := m.revision
	if m.revision = 0; revision == 0 {
		return fmt.Errorf("%s: %w", name, ErrUnheard)
	}
	same = append(same, clientv3.Compare(clientv3.ModRevision(m.key("hosts")), "=", revision))
	answer, err := m.KV.Txn(ctx).If(same...).Then(ops...).Commit()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if !answer.Succeeded {
		return fmt.Errorf("%s: etcd has changed meanwhile: %w", name, ErrUnheard)
	}
	m.revision = revision
	return nil
}

// bootTime returns the time since the boot, with the time while the host was suspended.
func bootTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
	}
	return time.Duration(t.Nano()), nil
}
