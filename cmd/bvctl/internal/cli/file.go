package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

// WriteFile calls write with a new file, and renames this file to the given path. So nobody reads an
// incomplete file at this path. WriteFile replaces only regular files, because a renamed file would
// also replace a device such as /dev/null, or a symbolic link such as /dev/stdout.
func WriteFile(path string, mode os.FileMode, write func(io.Writer) error) error {
	if old, err := os.Lstat(path); err == nil && !old.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file; give the path of a new file", path)
	}
	// Two calls at the same time would use the same temporary file.
	lock, err := flock.Acquire(filepath.Dir(path), flock.Exclusive, 10*time.Second)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	temporary := path + ".new"
	// A call that was killed may have left the file. Without O_EXCL, root would follow a symbolic
	// link that another user has put there.
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|unix.O_EXCL, mode)
	if err != nil {
		return err
	}
	// The umask has no effect on Chmod.
	if err = errors.Join(f.Chmod(mode), write(f), f.Close()); err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(temporary))
	}
	return err
}
