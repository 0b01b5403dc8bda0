package ipam

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/stickyfile"
)

// sticky asks for a container of a pod.
func sticky(t testing.TB, memory, pod, container string, ranges ...string) Request {
	r := request(t, container, ranges...)
	r.StickyDir = memory
	if pod != "" {
		r.Sticky = Sticky{Name: "ns/" + pod, For: time.Hour}
	}
	return r
}

// TestSticky follows pods that come back in other containers.
func TestSticky(t *testing.T) {
	s, memory := openTemp(t), filepath.Join(t.TempDir(), "memory")
	const v4, v6 = "10.0.0.0/29", "fd00::/64" // .2 to .6
	expect(t, s, sticky(t, memory, "p", "p1", v4, v6), "10.0.0.2/29 fd00::2/64")
	expect(t, s, sticky(t, memory, "q", "q1", v4, v6), "10.0.0.3/29 fd00::3/64")
	expect(t, s, sticky(t, memory, "p", "p2", v4, v6), "10.0.0.4/29 fd00::4/64") // the first one is alive
	release(t, s, "q1", "p1")
	expect(t, s, sticky(t, memory, "", "x", v4, v6), "10.0.0.5/29 fd00::5/64")
	expect(t, s, sticky(t, memory, "q", "q2", v4, v6), "10.0.0.3/29 fd00::3/64")
	release(t, s, "p2")
	all, err := s.Leases("net")
	if err != nil || len(all) != 6 || all[1].Address.String() != "10.0.0.4/29" || all[1].Until.IsZero() || all[1].Sticky.Name != "ns/p" {
		t.Errorf("leases %+v, %v", all, err)
	}
	expect(t, s, sticky(t, memory, "p", "p3", v4, v6), "10.0.0.4/29 fd00::4/64")

	// A pod whose container died unnoticed.
	r := sticky(t, memory, "p", "p4", v4, v6)
	r.InUse = func(l Lease) bool { return l.Container != "p3" }
	expect(t, s, r, "10.0.0.4/29 fd00::4/64")

	// What is kept is given away before anybody hears "exhausted", the oldest first.
	release(t, s, "q2", "p4")
	expect(t, s, sticky(t, memory, "", "y", v4, v6), "10.0.0.6/29 fd00::6/64")
	expect(t, s, sticky(t, memory, "", "z", v4, v6), "10.0.0.2/29 fd00::7/64")
	if _, err := s.Available(sticky(t, memory, "", "z", v4)); err != nil {
		t.Errorf("room: %v", err)
	}
	expect(t, s, sticky(t, memory, "", "a", v4, v6), "10.0.0.3/29 fd00::8/64")
	expect(t, s, sticky(t, memory, "p", "p5", v4, v6), "10.0.0.4/29 fd00::4/64")
	expect(t, s, sticky(t, memory, "q", "q3", v6), "fd00::3/64")
	if _, err := s.Available(sticky(t, memory, "", "z", v4)); !errors.Is(err, ErrExhausted) {
		t.Errorf("room: got %v, want ErrExhausted", err)
	}
}

// TestStickyExpires shows that a kept address is free when its time is over, and that
// its name is forgotten with it.
func TestStickyExpires(t *testing.T) {
	s, memory := openTemp(t), t.TempDir()
	for i := range 40 {
		r := sticky(t, memory, fmt.Sprint(i), fmt.Sprint(i), "10.0.0.0/24")
		r.Sticky.For = time.Nanosecond
		if _, err := s.Reserve(r); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 40 {
		release(t, s, fmt.Sprint(i))
	}
	for range 3 { // some at a time
		expect(t, s, request(t, "x", "fd00::/64"), "fd00::2/64")
	}
	if all, err := s.Leases("net"); len(all) != 1 || err != nil {
		t.Errorf("%d leases, %v, want 1: %v", len(all), err, all)
	}
	r := sticky(t, memory, "7", "new", "10.0.0.0/24")
	expect(t, s, r, "10.0.0.42/24")
}

// TestStickyReboot boots the host: a name has its addresses again, and until then
// nobody else has them.
func TestStickyReboot(t *testing.T) {
	dir, memory := t.TempDir(), t.TempDir()
	const v4, v6 = "10.0.0.0/29", "fd00::/64"
	again := func(id string, f func(*Store)) {
		s := boot(t, id).tryOpen(t, dir)
		f(s)
		checkSound(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	again("one", func(s *Store) {
		for i, pod := range []string{"a", "b", "c"} {
			reserve(s, sticky(t, memory, pod, fmt.Sprint(i), v4, v6))
		}
		release(t, s, "1")
	})
	again("two", func(s *Store) {
		expect(t, s, sticky(t, memory, "c", "x", v4, v6), "10.0.0.4/29 fd00::4/64")
		expect(t, s, sticky(t, memory, "", "y", v4, v6), "10.0.0.5/29 fd00::5/64")
		expect(t, s, sticky(t, memory, "b", "z", v4, v6), "10.0.0.3/29 fd00::3/64")
	})
	again("three", func(s *Store) { // not sticky any more
		expect(t, s, request(t, "y", v4, v6), "10.0.0.2/29 fd00::2/64")
		expect(t, s, sticky(t, memory, "b", "z", v4, v6), "10.0.0.3/29 fd00::3/64")
		expect(t, s, sticky(t, memory, "a", "w", v4, v6), "10.0.0.5/29 fd00::5/64") // y has that of a
	})
	if err := os.WriteFile(filepath.Join(memory, stickyfile.Name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again("four", func(s *Store) {
		_, err := s.Reserve(sticky(t, memory, "a", "w", v4, v6))
		want := "sticky addresses: " + filepath.Join(memory, stickyfile.Name) + ": the file is damaged (it is 0 bytes long); delete it: each name then gets another address once"
		if !errors.Is(err, ErrDamaged) || err.Error() != want {
			t.Errorf("got %v, want ErrDamaged: %s", err, want)
		}
		expect(t, s, request(t, "w", v4, v6), "10.0.0.2/29 fd00::2/64")
	})
}

// TestStickyRebootUnnamed boots the host, and a container without a name comes first.
func TestStickyRebootUnnamed(t *testing.T) {
	dir, memory := t.TempDir(), t.TempDir()
	unnamed := request(t, "first", "10.0.0.0/29")
	unnamed.StickyDir, unnamed.Sticky.For = memory, time.Hour
	for _, id := range []string{"one", "two"} {
		s := boot(t, id).tryOpen(t, dir)
		if id == "two" {
			expect(t, s, unnamed, "10.0.0.3/29")
		}
		expect(t, s, sticky(t, memory, "pod", "p", "10.0.0.0/29"), "10.0.0.2/29")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStickyMemories has a name come back that is remembered with another address in a
// second folder: it keeps the one that it has, and the other is free.
func TestStickyMemories(t *testing.T) {
	old, now := t.TempDir(), t.TempDir()
	before := openTemp(t)
	expect(t, before, request(t, "x", "10.0.0.0/29"), "10.0.0.2/29")
	expect(t, before, sticky(t, old, "pod", "p", "10.0.0.0/29"), "10.0.0.3/29")

	s := openTemp(t)
	expect(t, s, sticky(t, now, "pod", "p", "10.0.0.0/29"), "10.0.0.2/29")
	expect(t, s, sticky(t, old, "other", "o", "10.0.0.0/29"), "10.0.0.3/29")
	checkSound(t, s)
	release(t, s, "p")
	expect(t, s, sticky(t, now, "pod", "q", "10.0.0.0/29"), "10.0.0.2/29")
}

// TestStickySpoilt reads a memory whose record makes no sense: that file is named, not the
// store.
func TestStickySpoilt(t *testing.T) {
	s, memory := openTemp(t), t.TempDir()
	expect(t, s, sticky(t, memory, "a", "1", "10.0.0.0/24"), "10.0.0.2/24")
	f, err := stickyfile.Open(memory, s.dir())
	if err == nil {
		err = errors.Join(f.Save("net", map[string][]byte{"ns/b\x00eth0": []byte("short")}), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = openTemp(t).Reserve(sticky(t, memory, "a", "1", "10.0.0.0/24"))
	if !errors.Is(err, ErrDamaged) || !errors.Is(err, ErrSticky) || !strings.Contains(err.Error(), filepath.Join(memory, stickyfile.Name)+": ") {
		t.Errorf("got %v, want ErrDamaged of %s", err, memory)
	}
}

// TestStickyOwnFolder keeps the memory beside the store.
func TestStickyOwnFolder(t *testing.T) {
	dir := t.TempDir()
	s := tryOpen(t, dir)
	defer s.Close()
	expect(t, s, sticky(t, dir, "a", "1", "10.0.0.0/24"), "10.0.0.2/24")
}

// TestStickyWaits shows what the disk is waited for: only a name that is new.
func TestStickyWaits(t *testing.T) {
	s, memory := openTemp(t), t.TempDir()
	written := func() time.Time {
		info, err := os.Stat(filepath.Join(memory, stickyfile.Name))
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime()
	}
	expect(t, s, sticky(t, memory, "a", "1", "10.0.0.0/24"), "10.0.0.2/24")
	first := written()
	release(t, s, "1")
	expect(t, s, sticky(t, memory, "a", "2", "10.0.0.0/24"), "10.0.0.2/24")
	expect(t, s, sticky(t, memory, "", "3", "10.0.0.0/24"), "10.0.0.3/24")
	if !written().Equal(first) {
		t.Error("it was written although nothing was new")
	}
	expect(t, s, sticky(t, memory, "b", "4", "10.0.0.0/24"), "10.0.0.4/24")
	if written().Equal(first) {
		t.Error("a new name was not written")
	}
}
