package flock

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestAcquire holds a lock in one mode and asks for it in another.
func TestAcquire(t *testing.T) {
	for _, tt := range []struct {
		name        string
		held, asked Mode
		free        bool
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
			if tt.free {
				if err != nil {
					t.Fatalf("not free: %v", err)
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
				t.Fatalf("after the holder let go: %v", err)
			}
			third.Unlock()
		})
	}
}

// TestAcquireWaits shows that a waiter gets the lock when its holder lets go.
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

// TestAcquireFDTooLate gives up on a lock, has it later, and keeps it: who gave up does not
// give it back.
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
			t.Fatal("somebody else has the lock too")
		}
	}
}

func TestAcquireMissing(t *testing.T) {
	if _, err := Acquire(t.TempDir()+"/none", Shared, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}
