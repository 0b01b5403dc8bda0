package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrShared means that a user other than root and the user of this process can change a folder.
// The files in such a folder may be that user's own files, or symbolic links to files of root.
var ErrShared = errors.New("other users can change it")

// maxLinks is the number of symbolic links that the kernel follows in one path
// (path_resolution(7)).
const maxLinks = 40

// MakeFolder creates the folder at path, and the missing folders above it, with the mode 0700. The
// error is ErrShared if another user can change the folder, or can replace it by another folder or
// a symbolic link. MakeFolder follows symbolic links that no other user can replace.
func MakeFolder(path string) error { return checkFolder(path, true) }

// CheckFolder checks a folder like MakeFolder, but does not create it. If the folder is missing, the
// error is fs.ErrNotExist.
func CheckFolder(path string) error { return checkFolder(path, false) }

// checkFolder checks all folders from "/" to path. A path that it has accepted stays valid, because
// only root and the user of this process can change it.
func checkFolder(path string, create bool) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	root, err := lstat("/")
	if err != nil {
		return err
	}
	w := walk{root: root, folder: "/", st: root}
	rest := strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		target, err := w.enter(rest[0], create)
		if err != nil {
			return err
		}
		rest = rest[1:]
		if target != "" {
			rest = append(strings.Split(target, "/"), rest...)
			links++
		}
		if links > maxLinks {
			return &fs.PathError{Op: "open", Path: path, Err: unix.ELOOP}
		}
	}
	if w.shared() {
		return w.refused()
	}
	return nil
}

// walk is a step on the way from "/" to a folder.
type walk struct {
	root   unix.Stat_t // of "/"
	folder string      // where the walk has arrived, without symbolic links
	st     unix.Stat_t // of folder
}

// enter moves the walk to an entry of its folder. If the entry is a symbolic link, enter returns the
// target, and does not move further than to "/" for an absolute target.
func (w *walk) enter(entry string, create bool) (target string, err error) {
	name := filepath.Join(w.folder, entry)
	if name == w.folder { // the entry is "" or "."
		return "", nil
	}
	replaceable := w.shared() && entry != ".."
	if replaceable && w.st.Mode&unix.S_ISVTX == 0 {
		return "", w.refused()
	}
	st, err := lstat(name)
	if create && errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(name, 0o700); err == nil || errors.Is(err, fs.ErrExist) {
			st, err = lstat(name)
		}
	}
	switch {
	case err != nil:
		return "", err
	case replaceable && !w.trusted(st.Uid): // in a folder with the sticky bit, only its owner can replace the entry
		return "", fmt.Errorf("%s: %w, because user %d has created it; delete it, or choose another folder", name, ErrShared, st.Uid)
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		if target, err = os.Readlink(name); filepath.IsAbs(target) {
			w.folder, w.st = "/", w.root
		}
		return target, err
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return "", &fs.PathError{Op: "open", Path: name, Err: unix.ENOTDIR}
	}
	w.folder, w.st = name, st
	return "", nil
}

// shared reports whether another user can create and delete entries of the folder.
func (w *walk) shared() bool {
	return !w.trusted(w.st.Uid) || w.st.Mode&unix.S_IWOTH != 0 || w.st.Mode&unix.S_IWGRP != 0 && w.st.Gid != 0
}

// trusted reports whether a user is root, the user of this process, or the owner of "/". In a user
// namespace, "/" and the folders below it belong to the user ID that stands for all users of the
// host.
func (w *walk) trusted(user uint32) bool {
	return user == 0 || int(user) == os.Geteuid() || user == w.root.Uid
}

// refused returns the error about a folder that another user can change.
func (w *walk) refused() error {
	return fmt.Errorf("%s: %w (owner %d, group %d, mode %s); run chown root and chmod go-w, or choose another folder", w.folder, ErrShared, w.st.Uid, w.st.Gid, fs.FileMode(w.st.Mode&0o777))
}

// lstat returns the status of a file or of a symbolic link.
func lstat(path string) (st unix.Stat_t, err error) {
	_, err = retried("lstat", path, func() (int, error) { return 0, unix.Lstat(path, &st) })
	return st, err
}
