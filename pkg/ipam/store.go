package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

const (
	storePrefix = "leases-" // then the boot's ID, so that no store outlives its boot
	storeSuffix = ".db"
	unfinished  = ".new"

	// format is raised whenever what the file holds changes its meaning.
	format = "1"

	// alienWait is what bbolt waits for its own lock on the file. We have a lock
	// already, so only an alien, such as bbolt's command, can be in the way.
	alienWait = 50 * time.Millisecond
)

// formatKey is where the store's format stands.
var formatBucket, formatKey = []byte("store"), []byte("format")

// bootIDFile is a variable for tests to boot by.
var bootIDFile = "/proc/sys/kernel/random/boot_id"

var (
	// ErrDamaged says that a store cannot be read. What it held is unknown, so
	// nothing more is handed out from it.
	ErrDamaged = errors.New("the store is damaged; stop the containers of its networks and delete it, or reboot")
	// ErrNewer says that a later release wrote the store.
	ErrNewer = errors.New("a later release wrote the store; use that one until the next reboot")
)

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
	db     *bolt.DB
	file   *os.File // db's
	path   string
	lock   *flock.Lock
	broken error // why the store is no longer to be touched
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

// open opens the store in a folder that exists. It calls absent where there is
// none.
func open(dir string, wait time.Duration, absent func(*Store) error) (s *Store, err error) {
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		return nil, fmt.Errorf("read ID of the boot: %w", err)
	}
	// Our lock is on the folder: bbolt's own is looked at only every 50 ms.
	lock, err := flock.Acquire(dir, flock.Exclusive, wait)
	if err != nil {
		return nil, err
	}
	s = &Store{path: filepath.Join(dir, storePrefix+strings.TrimSpace(string(boot))+storeSuffix), lock: lock}
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

// load opens the store's file, which exists, and looks whether it is one.
func (s *Store) load() error {
	err := s.guard(func() (err error) {
		s.db, err = bolt.Open(s.path, 0, s.options(inspect))
		return err
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return errors.New("another program than bridgeveth has the file open; end it")
	}
	if s.broken != nil {
		return errors.Join(err, s.close())
	}
	if err != nil {
		return err
	}
	if err := s.guard(func() error { return s.db.View(checkFormat) }); err != nil {
		return errors.Join(err, s.close())
	}
	return nil
}

// create makes an empty store under another name and renames it, so that a killed
// process leaves either none or a whole one. Stores of earlier boots, and what was
// left unfinished, go first.
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
	db, err := bolt.Open(s.path+unfinished, 0o600, s.options(nil))
	if err != nil {
		return err
	}
	err = db.Update(writeFormat)
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	return os.Rename(s.path+unfinished, s.path)
}

// options are bbolt's. With look the file must exist, and is looked at before
// bbolt trusts it.
func (s *Store) options(look func(*os.File) error) *bolt.Options {
	return &bolt.Options{
		Timeout: alienWait, PageSize: pageSize,
		NoSync: true, NoGrowSync: true, NoStatistics: true,
		// An array is quicker to load than a map, and it is loaded each time; the
		// list is short, unless a great many leases were freed at once.
		FreelistType: bolt.FreelistArrayType,
		OpenFile: func(path string, flags int, mode os.FileMode) (f *os.File, err error) {
			if look != nil {
				flags &^= os.O_CREATE
			}
			if f, err = os.OpenFile(path, flags, mode); err != nil {
				return nil, err
			}
			if look != nil {
				err = look(f)
			}
			if err != nil {
				return nil, errors.Join(err, f.Close())
			}
			s.file = f
			return f, nil
		},
	}
}

// writeFormat makes a new file a store.
func writeFormat(tx *bolt.Tx) error {
	b, err := tx.CreateBucket(formatBucket)
	if err == nil {
		err = b.Put(formatKey, []byte(format))
	}
	if err == nil {
		_, err = tx.CreateBucket(networksBucket)
	}
	return err
}

// checkFormat compares the file's format with ours.
func checkFormat(tx *bolt.Tx) error {
	b := tx.Bucket(formatBucket)
	if b == nil {
		return ErrDamaged
	}
	if found := string(b.Get(formatKey)); found != format {
		return fmt.Errorf("%w (its format is %q, ours %q)", ErrNewer, found, format)
	}
	if tx.Bucket(networksBucket) == nil {
		return ErrDamaged
	}
	return nil
}

// Close gives the store to the next process.
func (s *Store) Close() error {
	defer s.lock.Unlock()
	return s.named(s.close())
}

// close closes the file, without bbolt where that could wait forever: it may have
// panicked with its own locks taken.
func (s *Store) close() error {
	if s.broken != nil {
		// Closing would not unlock: the memory that stays mapped keeps the file open.
		return errors.Join(unix.Flock(int(s.file.Fd()), unix.LOCK_UN), s.file.Close())
	}
	return s.db.Close()
}

// guard turns the panic of bbolt over a page that makes no sense, and the fault
// of reading past the end of a truncated file, into an error. After that, the
// store is not touched again.
func (s *Store) guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			s.broken = fmt.Errorf("%w (%v)", ErrDamaged, p)
			err = s.broken
		}
	}()
	if s.broken != nil {
		return s.broken
	}
	return f()
}

// update changes a network's leases, all at once or not at all.
func (s *Store) update(name string, f func(*network) error) error {
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

// view reads a network's leases. A network that is not in the store has none, and
// f is not called.
func (s *Store) view(name string, f func(*network) error) error {
	return s.named(s.guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			n, err := openNetwork(tx, name)
			if n == nil {
				return err
			}
			return f(n)
		})
	}))
}

// named adds the file's name to errors that are about it.
func (s *Store) named(err error) error {
	var path *fs.PathError
	if err == nil || errors.Is(err, ErrExhausted) || errors.As(err, &path) && path.Path == s.path {
		return err
	}
	return fmt.Errorf("%s: %w", s.path, err)
}
