package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/files"
	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

const (
	storePrefix = "leases-" // then the boot's ID, so that no store outlives its boot
	storeSuffix = ".db"

	storeCure = "delete it: the next ADD of each network takes over the addresses of the containers that are attached"
)

// bootIDFile is a variable for tests to boot by.
var bootIDFile = "/proc/sys/kernel/random/boot_id"

// Store keeps the leases of a folder's networks in one file. They are valid until
// the host boots again: its name carries the boot's ID.
//
// Nothing waits for a disk. A killed process leaves what it had written in the
// page cache, in the order of writing: bbolt writes the pages that have changed to
// places that are free, and makes them the valid ones by one write of one page,
// which the kernel does whole or not at all. Only a crash of the host can lose or
// reorder that, and it ends the boot.
//
// A Store is used by one goroutine at a time.
type Store struct {
	// HostLocal is the dataDir of host-local, whose reservations are taken over
	// where a network is new to the store; none when empty.
	HostLocal string
	// Present lists which addresses of a network containers have now, by other evidence than
	// the store: their links, or what a runtime has recorded. It is asked where a network is
	// new to the store, as after the file was deleted on a running host. None when nil.
	Present func(network string) ([]Lease, error)

	file
	lock *flock.Lock
}

// Open opens the store in dir, both made when absent, and keeps it from all other
// processes until Close. It waits up to wait for them: the error is then a
// flock.ErrTimeout that names one. Other errors name the file and may be
// ErrDamaged or ErrNewer.
func Open(dir string, wait time.Duration) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create folder of the store: %w", err)
	}
	return open(dir, wait, (*Store).create)
}

// OpenExisting opens the store in dir like Open, but makes none: where there is
// none, since nothing was leased since the host was booted, it is fs.ErrNotExist.
func OpenExisting(dir string, wait time.Duration) (*Store, error) {
	return open(dir, wait, func(*Store) error { return fs.ErrNotExist })
}

// Empty makes a store that is nowhere, for one that only looks where there is none: at what
// host-local has reserved, above all.
func Empty() (*Store, error) {
	fd, err := unix.MemfdCreate("leases", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a store in memory: %w", err)
	}
	defer unix.Close(fd) // bbolt opens it by itself
	s := &Store{file: file{path: fmt.Sprintf("/proc/self/fd/%d", fd), layout: storeLayout}}
	if err = s.begin(s.path); err == nil {
		err = s.load()
	}
	if err != nil {
		return nil, s.named(err)
	}
	return s, nil
}

// open opens the store in a folder that exists. It calls absent where there is
// none.
func open(dir string, wait time.Duration, absent func(*Store) error) (s *Store, err error) {
	boot, err := files.Read(bootIDFile)
	if err != nil {
		return nil, fmt.Errorf("read ID of the boot: %w", err)
	}
	lock, err := flock.Acquire(dir, flock.Exclusive, wait)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, storePrefix+strings.TrimSpace(string(boot))+storeSuffix)
	s = &Store{file: file{path: path, layout: storeLayout, cure: storeCure}, lock: lock}
	err = s.load()
	if errors.Is(err, fs.ErrNotExist) {
		if err = absent(s); err == nil {
			err = s.load()
		}
	}
	if err != nil {
		lock.Unlock()
		return nil, s.named(err)
	}
	return s, nil
}

// create makes an empty store. Those of earlier boots, finished or not, go first.
func (s *Store) create() error {
	old, err := filepath.Glob(filepath.Join(filepath.Dir(s.path), storePrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove store of an earlier boot: %w", err)
		}
	}
	return s.file.create()
}

// Close gives the store to the next process.
func (s *Store) Close() error {
	defer s.lock.Unlock()
	return s.named(s.close())
}

// reserving changes a network's leases, and makes the network where it is new.
func (s *Store) reserving(name string, f func(*network) error) error {
	return s.update(func(tx *bolt.Tx) error { return s.prepared(tx, name, f) })
}

// trying is reserving that leaves the store as it is.
func (s *Store) trying(name string, f func(*network) error) error {
	return s.try(func(tx *bolt.Tx) error { return s.prepared(tx, name, f) })
}

// prepared calls f with a network, made when absent, that has what its containers have, and
// what host-local had.
func (s *Store) prepared(tx *bolt.Tx, name string, f func(*network) error) error {
	n, err := openNetwork(tx, name)
	if err == nil && n == nil {
		n, err = s.rebuild(tx, name)
	}
	if err == nil {
		err = n.importOnce(s.HostLocal)
	}
	if err != nil {
		return err
	}
	return f(n)
}

// rebuild makes a network that has the leases of the containers that are attached.
func (s *Store) rebuild(tx *bolt.Tx, name string) (*network, error) {
	n, err := createNetwork(tx, name)
	if err != nil || s.Present == nil {
		return n, err
	}
	leases, err := s.Present(name)
	if err == nil {
		err = n.takeOver(leases)
	}
	if err != nil {
		return nil, fmt.Errorf("take over the addresses of attached containers: %w", err)
	}
	return n, nil
}

// changing changes a network's leases. A network that is not in the store has
// none, and f is not called.
func (s *Store) changing(name string, f func(*network) error) error {
	if _, inherits := s.awaits(name); inherits {
		return s.reserving(name, f)
	}
	return s.update(func(tx *bolt.Tx) error { return with(tx, name, f) })
}

// reading reads a network's leases, like changing. What is to be taken over is left for the
// next change to take over.
func (s *Store) reading(name string, f func(*network) error) error {
	if rebuilds, inherits := s.awaits(name); rebuilds || inherits {
		return s.trying(name, f)
	}
	return s.view(func(tx *bolt.Tx) error { return with(tx, name, f) })
}

// with calls f with a network that is in the store.
func with(tx *bolt.Tx, name string, f func(*network) error) error {
	n, err := openNetwork(tx, name)
	if n == nil || err != nil {
		return err
	}
	return f(n)
}

// awaits says what a network still has to take over: what its containers have, where it is
// new to the store, and the reservations of host-local. It may be wrong that it does.
func (s *Store) awaits(name string) (rebuilds, inherits bool) {
	inherits = HasHostLocal(s.HostLocal, name)
	if s.Present == nil && !inherits {
		return false, false
	}
	known := false
	err := s.view(func(tx *bolt.Tx) error {
		return with(tx, name, func(n *network) error {
			known, inherits = true, inherits && !n.imported(s.HostLocal)
			return nil
		})
	})
	return err == nil && !known && s.Present != nil, err == nil && inherits
}
