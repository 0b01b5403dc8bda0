package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/files"
	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/allocator"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
)

// DefaultDir is the folder of the store, unless the configuration names another folder. /run is
// emptied at each boot, which also ends all leases.
const DefaultDir = "/run/ipam-simple"

const (
	// The name of a store's file is "leases-", the ID of the boot and ".db". So each boot has a
	// store of its own.
	storePrefix = "leases-"
	storeSuffix = ".db"

	storeRemedy = "delete it: the next ADD of each network takes over the addresses of the containers that are attached"
)

// Store keeps the leases of a folder's networks in one file. Leases end when the host boots
// again, so the file's name contains the boot's ID.
//
// No change waits for the disk. What a killed process has written stays in the page cache, in the
// order of writing. bbolt writes changed pages to free places. It then makes them valid by one
// write of one page, which the kernel does completely or not at all. Only a crash of the host can
// lose or reorder writes, and after a crash the leases have ended.
//
// Only one goroutine at a time may use a Store.
type Store struct {
	// HostLocal is the dataDir of host-local. A network that is new to the store imports the
	// reservations there. If HostLocal is "", nothing is imported.
	HostLocal string
	// FindAttached returns the addresses of a network's containers, from their links or from the
	// records of a runtime. It is called when a network is new to the store, for example because
	// the store was deleted on a running host. It may be nil.
	FindAttached func(network string) ([]Lease, error)

	file      boltfile.File
	lock      *flock.Lock
	maxQueued uint64 // the value of Allocator.MaxQueued
}

// opener opens stores. Tests use openers with other boot IDs.
type opener struct{ bootIDFile string }

// thisBoot opens the stores of the current boot.
var thisBoot = opener{"/proc/sys/kernel/random/boot_id"}

// Open opens the store in dir, and locks it for this process until Close. It makes the folder and
// the store if they are missing. Open waits up to wait for other processes. After this time, the
// error is flock.ErrTimeout and names one of these processes. Other errors name the file and may
// be ErrDamaged or ErrNewer.
func Open(dir string, wait time.Duration) (*Store, error) { return thisBoot.open(dir, wait) }

// OpenExisting opens the store in dir like Open, but does not make it. If there is no store,
// because nothing was leased since the boot, the error is fs.ErrNotExist.
func OpenExisting(dir string, wait time.Duration) (*Store, error) {
	return thisBoot.openExisting(dir, wait)
}

// OpenInMemory opens an empty store without a file, for a caller that only reads. The store has
// the leases that HostLocal and FindAttached return.
func OpenInMemory() (*Store, error) {
	fd, err := unix.MemfdCreate("leases", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a store in memory: %w", err)
	}
	defer unix.Close(fd) // bbolt has opened the file by its path before this
	s := newStore(fmt.Sprintf("/proc/self/fd/%d", fd), nil)
	if err = s.file.Init(s.file.Path); err == nil {
		err = s.file.Load()
	}
	if err != nil {
		return nil, s.named(err)
	}
	return s, nil
}

// newStore returns a store whose file is not open yet.
func newStore(path string, lock *flock.Lock) *Store {
	return &Store{
		file: boltfile.File{Path: path, Layout: records.Layout, Remedy: storeRemedy},
		lock: lock, maxQueued: allocator.DefaultMaxQueued,
	}
}

func (o opener) open(dir string, wait time.Duration) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create folder of the store: %w", err)
	}
	return o.load(dir, wait, (*Store).create)
}

func (o opener) openExisting(dir string, wait time.Duration) (*Store, error) {
	return o.load(dir, wait, func(*Store) error { return fs.ErrNotExist })
}

// load locks the folder dir, which must exist, and opens the store in it. If there is no store,
// load calls absent and tries again.
func (o opener) load(dir string, wait time.Duration, absent func(*Store) error) (*Store, error) {
	boot, err := files.Read(o.bootIDFile)
	if err != nil {
		return nil, fmt.Errorf("read ID of the boot: %w", err)
	}
	lock, err := flock.Acquire(dir, flock.Exclusive, wait)
	if err != nil {
		return nil, err
	}
	s := newStore(filepath.Join(dir, storePrefix+strings.TrimSpace(string(boot))+storeSuffix), lock)
	err = s.file.Load()
	if errors.Is(err, fs.ErrNotExist) {
		if err = absent(s); err == nil {
			err = s.file.Load()
		}
	}
	if err != nil {
		lock.Unlock()
		return nil, s.named(err)
	}
	return s, nil
}

// create makes an empty store. Before, it removes unfinished stores and the stores of earlier
// boots.
func (s *Store) create() error {
	old, err := filepath.Glob(filepath.Join(s.dir(), storePrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove store of an earlier boot: %w", err)
		}
	}
	return s.file.Create()
}

// dir returns the folder of the store.
func (s *Store) dir() string { return filepath.Dir(s.file.Path) }

// Close closes the store and unlocks its folder.
func (s *Store) Close() error {
	defer s.lock.Unlock()
	return s.named(s.file.Close())
}

// named returns err with the path of the store's file, unless the error is about a request or
// about the sticky file.
func (s *Store) named(err error) error {
	if allocator.Refused(err) || errors.Is(err, ErrSticky) {
		return err
	}
	return s.file.Named(err)
}
