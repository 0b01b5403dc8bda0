package ipam

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

const (
	memoryFile = "sticky.db"
	memoryCure = "delete it: each name then gets another address once"

	// memoryWait is for other stores that share the folder, each of which may wait for the disk.
	memoryWait = 5 * time.Second
)

// ErrMemory marks what is wrong with the memory, the store being sound.
var ErrMemory = errors.New("sticky addresses")

// memo notes a change of a name's addresses for the memory.
func (n *network) memo(key, record []byte) {
	if n.memos == nil {
		n.memos = map[string][]byte{}
	}
	n.memos[string(key)] = record
}

// memory keeps the names' addresses in a folder, for the next boot. Unlike the
// store it waits for the disk; it is written only when a name is new or gone.
type memory struct{ file }

// withMemory calls f with the memory in dir, both made when absent. Its errors are ErrMemory.
func (n *network) withMemory(dir string, f func(*memory) error) error {
	err := os.MkdirAll(dir, 0o700)
	var lock *flock.Lock
	if err == nil {
		lock, err = n.lockMemory(dir)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMemory, err)
	}
	defer lock.Unlock()
	m := &memory{file{path: filepath.Join(dir, memoryFile), layout: memoryLayout, cure: memoryCure, sync: true}}
	err = m.load()
	if errors.Is(err, fs.ErrNotExist) {
		if err = m.create(); err == nil {
			err = m.load()
		}
	}
	if err == nil {
		err = errors.Join(f(m), m.close())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMemory, m.named(err))
	}
	return nil
}

// lockMemory keeps other stores from a folder. One that is the store's own is locked already.
func (n *network) lockMemory(dir string) (lock *flock.Lock, err error) {
	own, err := os.Stat(filepath.Dir(n.tx.DB().Path()))
	if err != nil {
		return nil, err
	}
	if asked, err := os.Stat(dir); err != nil || os.SameFile(own, asked) {
		return nil, err
	}
	return flock.Acquire(dir, flock.Exclusive, memoryWait)
}

// recalledKey says that a memory was recalled, and so where there is one.
var recalledKey = []byte("recalled ")

// tellMemories writes what has changed of names to the memories that the network has
// had since the host was booted.
func (n *network) tellMemories() error {
	if len(n.memos) == 0 {
		return nil
	}
	c := n.root.Cursor()
	for k, _ := c.Seek(recalledKey); bytes.HasPrefix(k, recalledKey); k, _ = c.Next() {
		dir := string(k[len(recalledKey):])
		if err := n.withMemory(dir, func(m *memory) error { return m.save(n.name, n.memos) }); err != nil {
			return err
		}
	}
	return nil
}

// recallOnce keeps what names had before the host was booted, if that was not done
// yet. Their time begins anew.
func (n *network) recallOnce(dir string, sticky Sticky, now time.Time) error {
	done := append(bytes.Clone(recalledKey), dir...)
	if sticky.For == 0 || n.root.Get(done) != nil { // who has no name must not take a name's either
		return nil
	}
	var remembered map[string][]byte
	err := n.withMemory(dir, func(m *memory) (err error) {
		remembered, err = m.names(n.name)
		return err
	})
	if err != nil {
		return err
	}
	for key, record := range remembered {
		if err := n.keepRemembered(key, record, Lease{Time: now, Sticky: sticky}); err != nil {
			return err
		}
	}
	return n.root.Put(done, nil)
}

// keepRemembered keeps the addresses of a name that nobody has by now.
func (n *network) keepRemembered(key string, record []byte, l Lease) error {
	name, ifname, _ := bytes.Cut([]byte(key), []byte{0})
	l.Attachment = Attachment{Network: n.name, Interface: string(ifname)}
	l.Sticky.Name = string(name)
	list, err := decodeAddresses(record)
	if err != nil {
		return err
	}
	names, err := n.root.CreateBucketIfNotExists(namesBucket)
	if err != nil {
		return err
	}
	if names.Get([]byte(key)) != nil { // it has come since, and has others
		return nil
	}
	if err := names.Put([]byte(key), record); err != nil {
		return err
	}
	for _, a := range list {
		_, leased, err := n.lease(a)
		if err != nil {
			return err
		}
		if leased {
			continue
		}
		if err := n.occupyAny(a); err != nil {
			return err
		}
		l.Address = netip.PrefixFrom(a, a.BitLen())
		if _, err := n.keep(l, l.Time); err != nil {
			return err
		}
	}
	return nil
}

// names are a network's, with their addresses.
func (m *memory) names(network string) (map[string][]byte, error) {
	all := map[string][]byte{}
	err := m.view(func(tx *bolt.Tx) error {
		b := tx.Bucket(networksBucket).Bucket([]byte(network))
		if b == nil {
			return nil
		}
		return b.ForEach(func(name, record []byte) error {
			all[string(name)] = bytes.Clone(record)
			_, err := decodeAddresses(record)
			return err
		})
	})
	return all, err
}

// save writes what has changed of a network's names.
func (m *memory) save(network string, memos map[string][]byte) error {
	return m.update(func(tx *bolt.Tx) error {
		b, err := tx.Bucket(networksBucket).CreateBucketIfNotExists([]byte(network))
		for key, record := range memos {
			switch {
			case err != nil:
				return err
			case len(record) == 0:
				err = b.Delete([]byte(key))
			default:
				err = b.Put([]byte(key), record)
			}
		}
		return err
	})
}
