package ipam

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
	unfinished = ".new" // the end of the name that a file has while it is made

	// alienWait is what bbolt waits for its own lock on a file. We have a lock on its folder
	// already, so only an alien, such as bbolt's command, can be in the way.
	alienWait = 50 * time.Millisecond
)

var (
	// ErrDamaged says that a file cannot be read. What it held is unknown, so
	// nothing more is handed out from it.
	ErrDamaged = errors.New("the file is damaged")
	// ErrNewer says that a later release wrote the file.
	ErrNewer = errors.New("a later release wrote the file; use that one")
)

// file is a file of bbolt's, whose contents are networks. Whoever uses it has locked its
// folder: it is made, and looked at, before bbolt locks anything, and bbolt looks for its
// own lock only every 50 ms.
type file struct {
	db     *bolt.DB
	f      *os.File // db's
	path   string
	layout layout
	cure   string // what to do when it is damaged
	sync   bool   // each change is on the disk before it is done
	broken error  // why the file is no longer to be touched
}

// load opens the file, which exists, and looks whether it is one of ours.
func (f *file) load() error {
	err := f.guard(func() (err error) {
		f.db, err = bolt.Open(f.path, 0, f.options(inspect))
		return err
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return errors.New("another program than bridgeveth has the file open; end it")
	}
	if f.broken != nil {
		return errors.Join(err, f.close())
	}
	if err != nil {
		return err
	}
	err = f.guard(func() error {
		err := f.db.View(f.layout.check)
		if errors.Is(err, errOlder) {
			err = f.db.Update(f.layout.upgrade)
		}
		return err
	})
	if err != nil {
		return errors.Join(err, f.close())
	}
	return nil
}

// create makes an empty file under another name and renames it, so that a killed
// process leaves either none or a whole one.
func (f *file) create() error {
	if err := os.Remove(f.path + unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what was left unfinished: %w", err)
	}
	if err := f.begin(f.path + unfinished); err != nil {
		return err
	}
	return os.Rename(f.path+unfinished, f.path)
}

// begin makes a file that is empty, or absent, one of ours.
func (f *file) begin(path string) error {
	db, err := bolt.Open(path, 0o600, f.options(nil))
	if err != nil {
		return err
	}
	return errors.Join(db.Update(f.layout.write), db.Close())
}

// options are bbolt's. With look the file must exist, and is looked at before
// bbolt trusts it.
func (f *file) options(look func(*os.File) error) *bolt.Options {
	return &bolt.Options{
		Timeout: alienWait, PageSize: pageSize,
		NoSync: !f.sync, NoGrowSync: !f.sync, NoStatistics: true,
		// An array is quicker to load than a map, and it is loaded each time; the
		// list is short, unless a great many leases were freed at once.
		FreelistType: bolt.FreelistArrayType,
		OpenFile: func(path string, flags int, mode os.FileMode) (opened *os.File, err error) {
			if look != nil {
				flags &^= os.O_CREATE
			}
			if opened, err = files.Open(path, flags, mode); err != nil {
				return nil, err
			}
			if look != nil {
				err = look(opened)
			}
			if err != nil {
				return nil, errors.Join(err, opened.Close())
			}
			f.f = opened
			return opened, nil
		},
	}
}

// close closes the file, without bbolt where that could wait forever: it may have
// panicked with its own locks taken.
func (f *file) close() error {
	if f.broken != nil {
		// Closing would not unlock: the memory that stays mapped keeps the file open.
		return errors.Join(unix.Flock(int(f.f.Fd()), unix.LOCK_UN), f.f.Close())
	}
	return f.db.Close()
}

// guard turns the panic of bbolt over a page that makes no sense, and the fault
// of reading past the end of a truncated file, into an error. After that, the
// file is not touched again.
func (f *file) guard(do func() error) (err error) {
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

// update changes the file, all at once or not at all.
func (f *file) update(change func(*bolt.Tx) error) error {
	return f.named(f.guard(func() error { return f.db.Update(change) }))
}

// try makes a change, and takes it back: the file stays as it is.
func (f *file) try(change func(*bolt.Tx) error) error {
	return f.named(f.guard(func() error {
		tx, err := f.db.Begin(true)
		if err != nil {
			return err
		}
		return errors.Join(change(tx), tx.Rollback())
	}))
}

// view reads the file.
func (f *file) view(look func(*bolt.Tx) error) error {
	return f.named(f.guard(func() error { return f.db.View(look) }))
}

// named adds the file's name to errors that are about it, and what to do when it is damaged.
func (f *file) named(err error) error {
	var path *fs.PathError
	var other *fileError
	if err == nil || refused(err) || errors.As(err, &other) || errors.As(err, &path) && path.Path == f.path {
		return err
	}
	if errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("%w; %s", err, f.cure)
	}
	return &fileError{f.path, err}
}

// fileError is an error about a file.
type fileError struct {
	path string
	err  error
}

// Error begins with the file's name.
func (e *fileError) Error() string { return e.path + ": " + e.err.Error() }

// Unwrap is for errors.Is and errors.As.
func (e *fileError) Unwrap() error { return e.err }
