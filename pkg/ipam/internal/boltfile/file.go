package boltfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/files"
)

const (
	unfinishedSuffix = ".new" // end of the file's name until Create has finished

	// otherProgramWait is how long bbolt waits for its own lock on the file. The caller has locked
	// the folder, so no process of bridgeveth can hold bbolt's lock. Another program can, such as
	// the command bbolt.
	otherProgramWait = 50 * time.Millisecond
)

var (
	// ErrDamaged means that a file cannot be read. It is then unknown which addresses are leased,
	// so no address may be given out.
	ErrDamaged = errors.New("the file is damaged")
	// ErrNewer means that a later release has written the file.
	ErrNewer = errors.New("a later release wrote the file; use that release")
)

// Tx is a transaction on a File.
type Tx = bolt.Tx

// File is a bbolt file. The caller must have locked the file's folder. bbolt's own lock is not
// sufficient for two reasons. Load inspects the file before bbolt locks it. A process that waits
// for bbolt's lock tries again only every 50 ms.
type File struct {
	Path   string
	Layout Layout
	Remedy string // what to do if the file is damaged
	Sync   bool   // Update returns only after the change is on the disk

	db     *bolt.DB
	f      *os.File // the file that db has open
	broken error    // the error after which the file may no longer be used, or nil
}

// Load opens the file. The file must exist. Load checks that the file is complete and has the right
// format.
func (f *File) Load() error {
	err := f.guard(func() (err error) {
		f.db, err = bolt.Open(f.Path, 0, f.options(inspect))
		return err
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return errors.New("a program other than bridgeveth has the file open; end that program")
	}
	if f.broken != nil {
		return errors.Join(err, f.Close())
	}
	if err != nil {
		return err
	}
	err = f.guard(func() error {
		err := f.db.View(f.Layout.check)
		if errors.Is(err, errOlder) {
			err = f.db.Update(f.Layout.upgrade)
		}
		return err
	})
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

// Create makes an empty file under another name, and then renames the file. If the process is
// killed, there is either no file or a complete file.
func (f *File) Create() error {
	if err := os.Remove(f.Path + unfinishedSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the unfinished file of a killed process: %w", err)
	}
	if err := f.Init(f.Path + unfinishedSuffix); err != nil {
		return err
	}
	return os.Rename(f.Path+unfinishedSuffix, f.Path)
}

// Init makes the buckets and the format number in the file at path. The file must be empty or
// absent.
func (f *File) Init(path string) error {
	db, err := bolt.Open(path, 0o600, f.options(nil))
	if err != nil {
		return err
	}
	return errors.Join(db.Update(f.Layout.write), db.Close())
}

// options returns the options for bbolt. If the function check is not nil, the file must exist, and
// bbolt calls check before it reads the file.
func (f *File) options(check func(*os.File) error) *bolt.Options {
	return &bolt.Options{
		Timeout: otherProgramWait, PageSize: pageSize,
		NoSync: !f.Sync, NoGrowSync: !f.Sync, NoStatistics: true,
		// Each Load reads the list of free pages. bbolt reads it faster into an array than into a
		// map. The list is short, unless very many leases were freed at once.
		FreelistType: bolt.FreelistArrayType,
		OpenFile: func(path string, flags int, mode os.FileMode) (opened *os.File, err error) {
			if check != nil {
				flags &^= os.O_CREATE
			}
			if opened, err = files.Open(path, flags, mode); err != nil {
				return nil, err
			}
			if check != nil {
				err = check(opened)
			}
			if err != nil {
				return nil, errors.Join(err, opened.Close())
			}
			f.f = opened
			return opened, nil
		},
	}
}

// Close closes the file. After a panic of bbolt, Close does not call bbolt, because bbolt may
// still hold its own locks and would wait for them forever.
func (f *File) Close() error {
	if f.broken != nil {
		// Closing the descriptor does not release bbolt's lock, because the mapped memory keeps the
		// file open.
		return errors.Join(unix.Flock(int(f.f.Fd()), unix.LOCK_UN), f.f.Close())
	}
	return f.db.Close()
}

// guard calls the function do. It returns ErrDamaged if bbolt panics because it cannot read a page,
// or if a read beyond the end of a truncated file causes a memory fault. Afterwards, the file may
// no longer be used.
func (f *File) guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			f.broken = fmt.Errorf("%w (%v)", ErrDamaged, p)
			err = f.broken
		}
	}()
	if f.broken != nil {
		return f.broken
	}
	return do()
}

// Update calls the function change in a transaction, and writes its changes to the file. If the
// function returns an error, Update writes nothing.
func (f *File) Update(change func(*Tx) error) error {
	return f.guard(func() error { return f.db.Update(change) })
}

// Try calls the function change in a transaction, and discards its changes. The file stays as it
// is.
func (f *File) Try(change func(*Tx) error) error {
	return f.guard(func() error {
		tx, err := f.db.Begin(true)
		if err != nil {
			return err
		}
		return errors.Join(change(tx), tx.Rollback())
	})
}

// View calls the function read in a transaction that cannot change the file.
func (f *File) View(read func(*Tx) error) error {
	return f.guard(func() error { return f.db.View(read) })
}

// Named returns err with the file's path before it. If the file is damaged, Named adds the remedy.
// It does not change an error that already names a file.
func (f *File) Named(err error) error {
	var path *fs.PathError
	var other *fileError
	if err == nil || errors.As(err, &other) || errors.As(err, &path) && path.Path == f.Path {
		return err
	}
	if errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("%w; %s", err, f.Remedy)
	}
	return &fileError{f.Path, err}
}

// fileError is an error with the path of the file.
type fileError struct {
	path string
	err  error
}

// Error returns the file's path, and then the text of the error.
func (e *fileError) Error() string { return e.path + ": " + e.err.Error() }

// Unwrap returns the error without the path.
func (e *fileError) Unwrap() error { return e.err }
