package cli

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// WriteFile calls write with a new file, and renames this file to the given path. So nobody reads an
// incomplete file at this path.
func WriteFile(path string, mode os.FileMode, write func(io.Writer) error) error {
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
