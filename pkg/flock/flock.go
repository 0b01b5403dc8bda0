package flock

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/files"
)

// Mode says which other locks a lock excludes.
type Mode int

// A Shared lock excludes Exclusive locks. An Exclusive lock excludes all locks.
const (
	Shared    Mode = unix.LOCK_SH
	Exclusive Mode = unix.LOCK_EX
)

// ErrTimeout says that a lock was not free in time.
var ErrTimeout = errors.New("lock is held by another process")

// deadline is the time at which the process stops waiting for locks, in nanoseconds since 1970.
// Undoing adds undoTime to it, in nanoseconds. Both are 0 if there is no deadline.
var deadline, undoTime atomic.Int64

// Limit sets a deadline: the process stops waiting for locks after wait, counted from now.
// Undoing extends the deadline by undo. After the deadline, Acquire fails unless the lock is
// free.
func Limit(wait, undo time.Duration) {
	deadline.Store(time.Now().Add(wait).UnixNano())
	undoTime.Store(int64(undo))
}

// Undoing extends the deadline for the steps that undo a failed call. Only the first call of
// Undoing has an effect.
func Undoing() {
	if more := undoTime.Swap(0); more != 0 {
		deadline.Add(more)
	}
}

// limited returns wait, or the time until the deadline if that is shorter.
func limited(wait time.Duration) time.Duration {
	if end := deadline.Load(); end != 0 {
		wait = min(wait, time.Until(time.Unix(0, end)))
	}
	return max(wait, 0)
}

// Lock is a lock that is held until Unlock.
type Lock struct {
	fd   int
	file *os.File // the file that Acquire has opened; nil for AcquireFD
}

// Acquire locks path, a file or folder that exists and that the caller may read. It waits up to
// wait for other holders. The error wraps ErrTimeout if the lock was not free in time.
func Acquire(path string, mode Mode, wait time.Duration) (*Lock, error) {
	l, err := open(path)
	if err != nil {
		return nil, err
	}
	if l, err = take(l, mode, wait); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return l, nil
}

// AcquireFD locks a file that is open, like Acquire. The file stays open after Unlock. Two calls
// with the same file descriptor do not exclude each other: the second one changes the mode.
func AcquireFD(fd int, mode Mode, wait time.Duration) (*Lock, error) {
	err := flock(fd, int(mode)|unix.LOCK_NB)
	if err == nil {
		return &Lock{fd: fd}, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, err
	}
	// The wait uses an open file of its own. If flock(2) gets the lock after the deadline, take
	// releases this lock some time later. By then, the caller may have locked fd again, or fd may be
	// the number of another file.
	link := fmt.Sprintf("/proc/self/fd/%d", fd)
	l, err := open(link)
	if err == nil {
		l, err = take(l, mode, wait)
	}
	if err != nil {
		name, _ := os.Readlink(link) // such as "net:[4026531840]" for a namespace
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return l, nil
}

// open opens a file, to lock it.
func open(path string) (*Lock, error) {
	f, err := files.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	return &Lock{int(f.Fd()), f}, nil
}

// take takes the lock. After an error it closes the file.
func take(l *Lock, mode Mode, wait time.Duration) (*Lock, error) {
	err := flock(l.fd, int(mode)|unix.LOCK_NB)
	if err == nil {
		return l, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		l.Unlock()
		return nil, err
	}
	// A blocked flock(2) gets the lock as soon as it is free. With polling, each process in the
	// queue would lose time. flock(2) has no timeout, so another thread calls it.
	done, start := make(chan error, 1), time.Now()
	go func() { done <- flock(l.fd, int(mode)) }()
	select {
	case err := <-done:
		if err != nil {
			l.Unlock()
			return nil, err
		}
		return l, nil
	case <-time.After(limited(wait)):
		go func() {
			if err := <-done; err != nil {
				_ = l.file.Close() // nothing was written
				return
			}
			l.Unlock() // the lock came too late
		}()
		return nil, fmt.Errorf("waited %s for %s: %w", time.Since(start).Round(time.Millisecond), holders(l.fd), ErrTimeout)
	}
}

// Unlock releases the lock. Unlock of a nil Lock does nothing.
func (l *Lock) Unlock() {
	if l == nil {
		return
	}
	_ = flock(l.fd, unix.LOCK_UN) // fails only if the file is closed, and thus unlocked
	if l.file != nil {
		_ = l.file.Close() // nothing was written
	}
}

// flock calls flock(2), and repeats the call if a signal interrupts it. The Go runtime sends
// signals to its own threads.
func flock(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
