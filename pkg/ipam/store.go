package ipam

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

const (
	storePrefix = "leases-" // then the boot's ID, so that no store outlives its boot
	storeSuffix = ".db"
	unfinished  = ".new"
	bootIDFile  = "/proc/sys/kernel/random/boot_id"

	leastPages = 4 // that bbolt makes a file of

	// format is raised whenever what the file holds changes its meaning.
	format = "1"
)

// formatKey is where the store's format stands.
var formatBucket, formatKey = []byte("store"), []byte("format")

var (
	// ErrDamaged says that a store cannot be read. What it held is unknown, so
	// nothing more is handed out from it.
	ErrDamaged = errors.New("the store is damaged; stop the containers of its networks and delete it, or reboot")
	// ErrNewer says that a later release wrote the store.
	ErrNewer = errors.New("a later release wrote the store; use that one until the next reboot")
)

// Store keeps the leases of a folder's networks in one file. They are valid until
// the host boots again: its name carries the boot's ID. A file that is a page of
// numbers short never comes about by killing a process, since bbolt writes a new
// version of what has changed and then, by one write of one page, makes it the
// valid one; and a crash of the host ends the boot. So nothing waits for a disk.
type Store struct {
	db   *bolt.DB
	path string
	lock *flock.Lock
}

// Open opens the store in dir, both made when absent, and keeps it from all other
// processes until Close. It waits up to wait for them: the error is then a
// flock.ErrTimeout that names one. Other errors name the file and may be
// ErrDamaged or ErrNewer.
func Open(dir string, wait time.Duration) (s *Store, err error) {
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		return nil, fmt.Errorf("read the boot's ID: %w", err)
	}
	return open(dir, strings.TrimSpace(string(boot)), wait)
}

func open(dir, boot string, wait time.Duration) (s *Store, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the store's folder: %w", err)
	}
	// bbolt has a lock too, but looks for it only every 50 ms.
	lock, err := flock.Acquire(dir, flock.Exclusive, wait)
	if err != nil {
		return nil, err
	}
	s = &Store{path: filepath.Join(dir, storePrefix+boot+storeSuffix), lock: lock}
	defer func() {
		if err != nil {
			lock.Unlock()
		}
	}()
	info, err := os.Stat(s.path)
	if errors.Is(err, os.ErrNotExist) {
		err = s.create()
	} else if err == nil && info.Size() < int64(leastPages*os.Getpagesize()) { // bbolt would begin anew in an empty one
		err = ErrDamaged
	}
	if err == nil {
		err = s.guard(func() error { return s.load(s.path) })
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s.path, err)
	}
	return s, nil
}

// create makes an empty store under another name and renames it, so that a killed
// process leaves either none or a whole one. Stores of earlier boots go.
func (s *Store) create() error {
	dir := filepath.Dir(s.path)
	old, err := filepath.Glob(filepath.Join(dir, storePrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove the store of an earlier boot: %w", err)
		}
	}
	return s.guard(func() error {
		if err := s.load(s.path + unfinished); err != nil {
			return err
		}
		return errors.Join(s.db.Close(), os.Rename(s.path+unfinished, s.path))
	})
}

// load opens a file as the store's, and gives a new one its format.
func (s *Store) load(path string) (err error) {
	s.db, err = bolt.Open(path, 0o600, &bolt.Options{
		Timeout: time.Second, // nobody else has it, since nobody else has our lock
		NoSync:  true, NoGrowSync: true,
		FreelistType: bolt.FreelistMapType, NoStatistics: true,
	})
	if errors.Is(err, bolterrors.ErrInvalid) || errors.Is(err, bolterrors.ErrChecksum) || errors.Is(err, bolterrors.ErrVersionMismatch) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return err
	}
	if err := s.checkFormat(filepath.Ext(path) == unfinished); err != nil {
		return errors.Join(err, s.db.Close())
	}
	return nil
}

// checkFormat compares the file's format with ours.
func (s *Store) checkFormat(isNew bool) error {
	if isNew {
		return s.db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucket(formatBucket)
			if err != nil {
				return err
			}
			return b.Put(formatKey, []byte(format))
		})
	}
	return s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(formatBucket)
		if b == nil {
			return ErrDamaged
		}
		if found := string(b.Get(formatKey)); found != format {
			return fmt.Errorf("%w (its format is %q, ours %q)", ErrNewer, found, format)
		}
		return nil
	})
}

// Close gives the store to the next process.
func (s *Store) Close() error {
	defer s.lock.Unlock()
	if err := s.guard(s.db.Close); err != nil {
		return fmt.Errorf("close %s: %w", s.path, err)
	}
	return nil
}

// guard turns the panic of bbolt over a page that makes no sense, and the fault
// of reading past the end of a truncated file, into an error.
func (s *Store) guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w (%v)", ErrDamaged, p)
		}
	}()
	return f()
}

// update changes a network's leases, all at once or not at all.
func (s *Store) update(name string, f func(network) error) error {
	return s.named(s.guard(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			n, err := createNetwork(tx, name)
			if err != nil {
				return err
			}
			return f(n)
		})
	}))
}

// view reads a network's leases. A network that is not in the store has none.
func (s *Store) view(name string, f func(network) error) error {
	return s.named(s.guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			n, ok := openNetwork(tx, name)
			if !ok {
				return nil
			}
			return f(n)
		})
	}))
}

// named adds the file's name to errors that are about it.
func (s *Store) named(err error) error {
	if err == nil || errors.Is(err, ErrExhausted) {
		return err
	}
	return fmt.Errorf("%s: %w", s.path, err)
}
