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

// Mode says whether a lock is shared or exclusive.
type Mode int

// A Shared lock excludes all Exclusive locks on the file. An Exclusive lock excludes all other
// locks.
const (
	Shared    Mode = unix.LOCK_SH
	Exclusive Mode = unix.LOCK_EX
)

// ErrTimeout means that another process did not release a lock in time.
var ErrTimeout = errors.New("lock is held by another process")

// deadline is the time at which the process stops waiting for locks, in nanoseconds since 1970.
// undoTime is the duration by which Undoing extends the deadline, in nanoseconds. Both are 0 if
// Limit was not called.
var deadline, undoTime atomic.Int64

// Limit sets the deadline of the process to the present time plus the duration wait. After the
// deadline, Acquire does not wait, and fails unless the lock is free. The function Undoing extends
// the deadline by the duration undo.
func Limit(wait, undo time.Duration) {
	deadline.Store(time.Now().Add(wait).UnixNano())
	undoTime.Store(int64(undo))
}

// Undoing extends the deadline, so that the process can still wait for locks while it undoes a
// failed call. Only the first call of Undoing has an effect.
func Undoing() {
	if more := undoTime.Swap(0); more != 0 {
		deadline.Add(more)
	}
}

// limited returns the shorter of two durations: wait, and the time until the deadline.
func limited(wait time.Duration) time.Duration {
	if end := deadline.Load(); end != 0 {
		wait = min(wait, time.Until(time.Unix(0, end)))
	}
	return max(wait, 0)
}

// Lock is a lock on a file. It is held until Unlock.
type Lock struct {
	fd        int
	file      *os.File // the file that Acquire has opened; nil for a Lock of AcquireFD
	inherited bool     // see Inherit
}

// Acquire locks a file or folder, which must exist and be readable. If other processes have locked
// it, Acquire waits until they release their locks, but no longer than the duration wait. After
// this time, the error wraps ErrTimeout.
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

// AcquireFD locks an open file, like Acquire. Unlock does not close the file. Two calls with the
// same file descriptor do not exclude each other: the second call only changes the mode of the
// lock.
func AcquireFD(fd int, mode Mode, wait time.Duration) (*Lock, error) {
	err := flock(fd, int(mode)|unix.LOCK_NB)
	if err == nil {
		return &Lock{fd: fd}, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, err
	}
	// AcquireFD opens the file a second time, and waits with the new descriptor. After a timeout,
	// flock(2) may still get the lock later, and the function take then releases the lock. On the
	// caller's descriptor, this release would also end a lock that the caller has taken after the
	// timeout.
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

// open opens a file to lock it.
func open(path string) (*Lock, error) {
	f, err := files.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	return &Lock{fd: int(f.Fd()), file: f}, nil
}

// take locks the file of l, and returns l. After an error, it closes the file.
func take(l *Lock, mode Mode, wait time.Duration) (*Lock, error) {
	err := flock(l.fd, int(mode)|unix.LOCK_NB)
	if err == nil {
		return l, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		l.Unlock()
		return nil, err
	}
	// flock(2) has no timeout, so another thread calls it. The call gets the lock as soon as the
	// lock is free. Polling would delay each waiting process.
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
				_ = l.file.Close() // no data can be lost: nothing was written to the file
				return
			}
			l.Unlock() // the lock became free too late
		}()
		return nil, fmt.Errorf("waited %s for %s: %w", time.Since(start).Round(time.Millisecond), holders(l.fd), ErrTimeout)
	}
}

// Inherit lets the programs that this process starts keep the lock if this process is killed: the
// lock then ends when the last of these programs has ended. Unlock releases the lock in any case.
func (l *Lock) Inherit() {
	l.inherited = true
	l.setFlags(0)
}

// setFlags sets the flags of the file descriptor (FD_CLOEXEC or none).
func (l *Lock) setFlags(flags int) {
	_, _ = unix.FcntlInt(uintptr(l.fd), unix.F_SETFD, flags) // fails only if the file is closed
}

// Unlock releases the lock. It does nothing if l is nil.
func (l *Lock) Unlock() {
	if l == nil {
		return
	}
	_ = flock(l.fd, unix.LOCK_UN) // flock(2) fails only if the file is closed, and then the lock is released already
	if l.file != nil {
		_ = l.file.Close() // no data can be lost: nothing was written to the file
	} else if l.inherited {
		l.setFlags(unix.FD_CLOEXEC)
	}
}

// flock calls flock(2), and repeats the call if a signal interrupts it. The Go runtime sends
// signals to its own threads at any time.
func flock(fd, how int) error {
	for {
		if err := unix.Flock(fd, how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
