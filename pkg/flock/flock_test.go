package flock

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAcquire checks for each pair of modes whether a second Acquire succeeds while the first Lock
// is held.
func TestAcquire(t *testing.T) {
	for _, tt := range []struct {
		name        string
		held, asked Mode
		compatible  bool
	}{
		{"two shared", Shared, Shared, true},
		{"exclusive after shared", Shared, Exclusive, false},
		{"shared after exclusive", Exclusive, Shared, false},
		{"two exclusive", Exclusive, Exclusive, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			held, err := Acquire(dir, tt.held, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			second, err := Acquire(dir, tt.asked, 10*time.Millisecond)
			if tt.compatible {
				if err != nil {
					t.Fatalf("got %v, want no error: the locks are compatible", err)
				}
				second.Unlock()
				return
			}
			if !errors.Is(err, ErrTimeout) {
				t.Fatalf("got %v, want ErrTimeout", err)
			}
			if want := fmt.Sprintf("process %d", os.Getpid()); !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not name %q", err, want)
			}
			held.Unlock()
			third, err := Acquire(dir, tt.asked, time.Second)
			if err != nil {
				t.Fatalf("after Unlock: %v", err)
			}
			third.Unlock()
		})
	}
}

// TestAcquireWaits checks that a waiting Acquire gets the lock when the first holder unlocks it.
func TestAcquireWaits(t *testing.T) {
	dir := t.TempDir()
	held, err := Acquire(dir, Exclusive, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, held.Unlock)
	second, err := Acquire(dir, Exclusive, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	second.Unlock()
}

// TestAcquireFDTooLate lets a call of AcquireFD time out, and then takes the lock with the same
// descriptor. This lock must stay. After the timeout, flock(2) of the first call still waits, and
// may return later.
func TestAcquireFDTooLate(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	held, err := Acquire(dir, Exclusive, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := AcquireFD(int(f.Fd()), Shared, 10*time.Millisecond); !errors.Is(err, ErrTimeout) {
		t.Fatalf("got %v, want ErrTimeout", err)
	}
	held.Unlock()
	mine, err := AcquireFD(int(f.Fd()), Exclusive, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Unlock()
	for range 10 {
		if other, err := Acquire(dir, Exclusive, 10*time.Millisecond); err == nil {
			other.Unlock()
			t.Fatal("two holders have an exclusive lock")
		}
	}
}

func TestAcquireMissing(t *testing.T) {
	if _, err := Acquire(t.TempDir()+"/none", Shared, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

// TestLimit checks that all waits of a process share one deadline, and that only the first call of
// Undoing extends it.
func TestLimit(t *testing.T) {
	t.Cleanup(func() { deadline.Store(0); undoTime.Store(0) })
	if got := limited(time.Hour); got != time.Hour {
		t.Errorf("without a limit: %s", got)
	}
	dir := t.TempDir()
	held, err := Acquire(dir, Exclusive, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Unlock()
	Limit(20*time.Millisecond, time.Hour)
	for range 3 {
		if _, err := Acquire(dir, Exclusive, 24*time.Hour); !errors.Is(err, ErrTimeout) {
			t.Fatalf("got %v, want ErrTimeout", err)
		}
	}
	if got := limited(time.Hour); got != 0 {
		t.Errorf("after three waits %s are left", got)
	}
	free, err := Acquire(t.TempDir(), Exclusive, 0)
	if err != nil {
		t.Fatalf("a lock that is free: %v", err)
	}
	free.Unlock()
	Undoing()
	Undoing()
	if got := limited(24 * time.Hour); got < time.Minute || got > time.Hour {
		t.Errorf("while undoing %s are left, want an hour", got)
	}
}

// TestStoppedHolder checks the error for a lock that a stopped process holds. It must contain the
// process's command line and the command that continues the process.
func TestStoppedHolder(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("flock", "--no-fork", dir, "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // the process may have ended already
		_ = cmd.Wait()
	}()
	for { // until the process has the lock and runs sleep
		l, err := Acquire(dir, Exclusive, 0)
		if err == nil {
			l.Unlock()
			continue
		}
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid)); err != nil || string(name) == "sleep\n" {
			break
		}
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := syscall.Wait4(cmd.Process.Pid, nil, syscall.WUNTRACED, nil); err != nil { // returns when the process has stopped
		t.Fatal(err)
	}
	want := fmt.Sprintf("for process %d (sleep 1000), which is stopped; continue it with: kill -CONT %[1]d", cmd.Process.Pid)
	_, err := Acquire(dir, Exclusive, 0)
	if got := fmt.Sprint(err); !strings.HasPrefix(got, "lock "+dir+": waited ") || !strings.Contains(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestTimeoutEnds checks that a timeout leaves nothing behind: as soon as the holder releases its
// lock, the goroutine that still waits for the lock ends, and the lock is free.
func TestTimeoutEnds(t *testing.T) {
	dir := t.TempDir()
	held, err := Acquire(dir, Exclusive, 0)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := Acquire(dir, Exclusive, time.Millisecond); !errors.Is(err, ErrTimeout) {
		t.Fatalf("got %v, %v, want ErrTimeout", l, err)
	}
	if !waits() {
		t.Error("no goroutine waits for the lock, so the test proves nothing")
	}
	held.Unlock()
	for waits() {
		time.Sleep(time.Millisecond)
	}
	l, err := Acquire(dir, Exclusive, 0)
	if err != nil {
		t.Error(err)
	}
	l.Unlock()
}

// waits reports whether a goroutine of the function take waits for a lock.
func waits() bool {
	stacks := make([]byte, 1<<20)
	return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "flock.take.func")
}
