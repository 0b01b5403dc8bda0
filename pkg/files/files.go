package files

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Open opens a file like os.OpenFile, with the flags of open(2). Child processes do not inherit the
// descriptor.
func Open(path string, flags int, mode os.FileMode) (*os.File, error) {
	fd, err := open(path, flags, mode)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Read returns the content of a file, like os.ReadFile.
func Read(path string) (content []byte, err error) {
	fd, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	part := make([]byte, 4096)
	for {
		size, err := retried("read", path, func() (int, error) { return unix.Read(fd, part) })
		if size == 0 || err != nil {
			return content, err
		}
		content = append(content, part[:size]...)
	}
}

// Write replaces the content of a file. The file must exist.
func Write(path, content string) error {
	fd, err := open(path, unix.O_WRONLY|unix.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = retried("write", path, func() (int, error) { return unix.Write(fd, []byte(content)) })
	return err
}

// open opens a file and returns its descriptor.
func open(path string, flags int, mode os.FileMode) (fd int, err error) {
	return retried("open", path, func() (int, error) { return unix.Open(path, flags|unix.O_CLOEXEC, uint32(mode.Perm())) })
}

// retried makes a system call, and repeats it if a signal interrupts it. The Go runtime sends
// signals to its own threads at any time.
func retried(op, path string, call func() (int, error)) (result int, err error) {
	for {
		result, err = call()
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: op, Path: path, Err: err}
		}
		return result, nil
	}
}
