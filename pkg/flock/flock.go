// Package flock takes advisory locks on files and directories, with a deadline
// and an error that names the process in the way.
//
// The locks are flock(2) locks: the kernel drops them when their holder exits,
// however it exits, so that a killed process never leaves one behind.
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

// Mode says whom a lock keeps out.
type Mode int

// Shared holders keep out an Exclusive one; an Exclusive one keeps out all.
const (
	Shared    Mode = unix.LOCK_SH
	Exclusive Mode = unix.LOCK_EX
)

// ErrTimeout is what a lock that was not had in time wraps.
var ErrTimeout = errors.New("lock is held by another process")

// limit is until when the process waits for locks, and extension is how much longer it does so
// for what takes back a call that has failed. Both are zero where nothing is limited.
var limit, extension atomic.Int64 // nanoseconds since 1970, and nanoseconds

// Limit has the process wait for locks no longer than wait from now on, all waits together,
// and until undo more from Undoing on. A wait that begins later fails unless the lock is free.
func Limit(wait, undo time.Duration) {
	limit.Store(time.Now().Add(wait).UnixNano())
	extension.Store(int64(undo))
}

// Undoing says that what follows takes back a call that has failed. Only the first time has
// an effect.
func Undoing() {
	if more := extension.Swap(0); more != 0 {
		limit.Add(more)
	}
}

// limited is a wait, or what the process has left for it.
func limited(wait time.Duration) time.Duration {
	if end := limit.Load(); end != 0 {
		wait = min(wait, time.Until(time.Unix(0, end)))
	}
	return max(wait, 0)
}

// Lock is a lock that is held until Unlock.
type Lock struct {
	fd   int
	file *os.File // that was opened for the lock, if one was
}

// Acquire locks path, a file or directory that exists and that the caller may
// read, and waits up to wait for whoever holds it.
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
	link := fmt.Sprintf("/proc/self/fd/%d", fd)
	l, err := open(link)
	if err == nil {
		l, err = take(l, mode, wait)
	}
	if err != nil {
		name, _ := os.Readlink(link) // "net:[4026531840]" of a namespace
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
	return &Lock{int(f.Fd()), f}, nil
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
				_ = l.file.Close() // read only
				return
			}
			l.Unlock() // it came after all: give it back
		}()
		return nil, fmt.Errorf("waited %s for %s: %w", time.Since(start).Round(time.Millisecond), holders(l.fd), ErrTimeout)
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
