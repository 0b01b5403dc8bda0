// Package flock takes advisory locks on files and directories, with a deadline
// and an error that names the process in the way.
//
// The locks are flock(2) locks: the kernel drops them when their holder exits,
// however it exits, so that a killed process never leaves one behind.
package flock

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/files"
)

// Mode says whom a lock keeps out.
type Mode int

// Shared holders keep out an Exclusive one; an Exclusive one keeps out all.
const (
	Shared    Mode = unix.LOCK_SH
	Exclusive Mode = unix.LOCK_EX
)

// ErrTimeout is what a lock that was not had in time wraps.
var ErrTimeout = errors.New("lock is held by another process")

// Lock is a lock that is held until Unlock.
type Lock struct {
	fd   int
	file *os.File // that was opened for the lock, if one was
}

// Acquire locks path, a file or directory that exists and that the caller may
// read, and waits up to wait for whoever holds it.
func Acquire(path string, mode Mode, wait time.Duration) (*Lock, error) {
	f, err := files.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	l, err := take(&Lock{int(f.Fd()), f}, mode, wait)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return l, nil
}

// AcquireFD is Acquire of a file that is open, and stays so after Unlock. The same
// file descriptor cannot be kept from itself.
func AcquireFD(fd int, mode Mode, wait time.Duration) (*Lock, error) {
	err := flock(fd, int(mode)|unix.LOCK_NB)
	if err == nil {
		return &Lock{fd: fd}, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, err
	}
	// To wait takes an open file of its own: a lock that comes too late is given back at any
	// time, when this one may be locked anew or the number be another file's.
	return Acquire(fmt.Sprintf("/proc/self/fd/%d", fd), mode, wait)
}

// take takes the lock, or lets go of it.
func take(l *Lock, mode Mode, wait time.Duration) (*Lock, error) {
	err := flock(l.fd, int(mode)|unix.LOCK_NB)
	if err == nil {
		return l, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		l.Unlock()
		return nil, err
	}
	// The kernel wakes a blocked flock(2) at once, where polling would cost a
	// pause for every process in the queue; only the deadline needs a second
	// thread.
	done := make(chan error, 1)
	go func() { done <- flock(l.fd, int(mode)) }()
	select {
	case err := <-done:
		if err != nil {
			l.Unlock()
			return nil, err
		}
		return l, nil
	case <-time.After(wait):
		go func() {
			if err := <-done; err != nil {
				_ = l.file.Close() // read only
				return
			}
			l.Unlock() // it came after all: give it back
		}()
		return nil, fmt.Errorf("waited %s for %s: %w", wait, holders(l.fd), ErrTimeout)
	}
}

// Unlock gives the lock back. A nil Lock is none.
func (l *Lock) Unlock() {
	if l == nil {
		return
	}
	_ = flock(l.fd, unix.LOCK_UN) // fails only for a file that is closed, and so unlocked
	if l.file != nil {
		_ = l.file.Close() // read only
	}
}

// flock is flock(2), tried again when a signal interrupts it: the Go runtime
// sends some of its own.
func flock(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// holders names the processes that hold a lock on fd's inode, from /proc/locks:
//
//	1: FLOCK  ADVISORY  WRITE 4711 00:18:1234 0 EOF
//
// A line with "->" is a waiter. Only the inode is compared: the device that is
// printed there is the file system's, which stat(2) does not always give.
func holders(fd int) string {
	var st unix.Stat_t
	f, err := os.Open("/proc/locks")
	if err != nil || unix.Fstat(fd, &st) != nil {
		return "an unknown process"
	}
	defer f.Close()
	var found []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], fmt.Sprintf(":%d", st.Ino)) {
			continue
		}
		name, err := os.ReadFile("/proc/" + fields[4] + "/comm")
		if err != nil {
			name = []byte("?")
		}
		found = append(found, fmt.Sprintf("process %s (%s)", fields[4], strings.TrimSpace(string(name))))
	}
	if len(found) == 0 {
		return "an unknown process"
	}
	return strings.Join(found, ", ")
}
