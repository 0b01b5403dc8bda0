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
// emptied at each boot, and leases end at a boot too.
const DefaultDir = "/run/ipam-simple"

const (
	// The name of a store's file consists of "leases-", the ID of the boot and ".db". Each boot
	// therefore has a store of its own.
	storePrefix = "leases-"
	storeSuffix = ".db"

	storeRemedy = "delete it: the next ADD of each network takes over the addresses of the containers that are attached"
)

// Store holds the leases of all networks that use the same folder, in one file. Leases end when the
// host boots, so the file's name contains the ID of the boot.
//
// No change waits for the disk. A killed process cannot damage the file. bbolt writes changed pages
// to free places, and then makes them valid by a write of one page. The kernel does this write
// completely or not at all, and its page cache keeps the writes in order. Only a crash of the host
// can lose or reorder writes, and a crash ends all leases.
//
// Only one goroutine at a time may use a Store.
type Store struct {
	// HostLocal is the dataDir of the plugin host-local. A network that is new to the store imports
	// the reservations in this folder. If HostLocal is "", nothing is imported.
	HostLocal string
	// FindAttached returns the addresses of a network's containers, from their links or from the
	// records of a runtime. The Store calls it when a network is new to the store, for example
	// because the store was deleted on a running host. FindAttached may be nil.
	FindAttached func(network string) ([]Lease, error)
	// FindNetworks returns the names of the networks that may have leases in this store. Together with
	// a new network, the Store makes the networks in this list, because their containers may have
	// addresses from the ranges of the new network. FindNetworks may be nil.
	FindNetworks func() ([]string, error)

	file      boltfile.File
	lock      *flock.Lock
	maxQueued uint64 // the value of Allocator.MaxQueued
}

// opener opens stores for the boot whose ID is in a file. Tests use files with other IDs.
type opener struct{ bootIDFile string }

// thisBoot opens the stores of the current boot.
var thisBoot = opener{"/proc/sys/kernel/random/boot_id"}

// Open opens the store in the folder dir, and locks it for this process until Close. It creates the
// folder and the store if they are missing. If other processes have locked the store, Open waits
// for at most the duration wait. After this time, the error is flock.ErrTimeout and names one of
// these processes. If another user can change the folder, the error is files.ErrShared. Other errors
// name the file and may be ErrDamaged or ErrNewer.
func Open(dir string, wait time.Duration) (*Store, error) { return thisBoot.open(dir, wait) }

// OpenExisting opens the store in the folder dir like Open, but does not create it. If there is no
// store, the error is fs.ErrNotExist: nothing was leased since the boot.
func OpenExisting(dir string, wait time.Duration) (*Store, error) {
	return thisBoot.openExisting(dir, wait)
}

// OpenInMemory opens a store in memory, for a caller that only reads. The store contains only the
// leases that it imports by HostLocal and FindAttached.
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

// newStore returns a store. Its file is not open yet.
func newStore(path string, lock *flock.Lock) *Store {
	return &Store{
		file: boltfile.File{Path: path, Layout: records.Layout, Remedy: storeRemedy},
		lock: lock, maxQueued: allocator.DefaultMaxQueued,
	}
}

func (o opener) open(dir string, wait time.Duration) (*Store, error) {
	if err := files.MakeFolder(dir); err != nil {
		return nil, fmt.Errorf("folder of the store: %w", err)
	}
	return o.load(dir, wait, (*Store).create)
}

func (o opener) openExisting(dir string, wait time.Duration) (*Store, error) {
	if err := files.CheckFolder(dir); err != nil {
		return nil, fmt.Errorf("folder of the store: %w", err)
	}
	return o.load(dir, wait, func(*Store) error { return fs.ErrNotExist })
}

// load locks the folder dir and opens the store in it. The folder must exist. If there is no store,
// load calls the function absent, which may create the store, and tries again.
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

// create makes an empty store. First it removes unfinished stores and the stores of earlier boots.
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

// named adds the path of the store's file to an error. It does not change errors about a request or
// about the sticky file.
func (s *Store) named(err error) error {
	if allocator.Refused(err) || errors.Is(err, ErrSticky) {
		return err
	}
	return s.file.Named(err)
}
