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

// sticky returns a request for a container of a pod. If pod is "", the container belongs to no
// pod.
func sticky(t testing.TB, stickyDir, pod, container string, ranges ...string) Request {
	r := request(t, container, ranges...)
	r.StickyDir = stickyDir
	if pod != "" {
		r.Sticky = Sticky{Name: "ns/" + pod, For: time.Hour}
	}
	return r
}

// TestSticky checks that a pod gets the same addresses again in another container.
func TestSticky(t *testing.T) {
	s, stickyDir := openTemp(t), filepath.Join(t.TempDir(), "stickyDir")
	const v4, v6 = "10.0.0.0/29", "fd00::/64" // .2 to .6 can be given out in v4
	expect(t, s, sticky(t, stickyDir, "p", "p1", v4, v6), "10.0.0.2/29 fd00::2/64")
	expect(t, s, sticky(t, stickyDir, "q", "q1", v4, v6), "10.0.0.3/29 fd00::3/64")
	expect(t, s, sticky(t, stickyDir, "p", "p2", v4, v6), "10.0.0.4/29 fd00::4/64") // the first container still has its addresses
	release(t, s, "q1", "p1")
	expect(t, s, sticky(t, stickyDir, "", "x", v4, v6), "10.0.0.5/29 fd00::5/64")
	expect(t, s, sticky(t, stickyDir, "q", "q2", v4, v6), "10.0.0.3/29 fd00::3/64")
	release(t, s, "p2")
	all, err := s.Leases("net")
	if err != nil || len(all) != 6 || all[1].Address.String() != "10.0.0.4/29" || all[1].Until.IsZero() || all[1].Sticky.Name != "ns/p" {
		t.Errorf("leases %+v, %v", all, err)
	}
	expect(t, s, sticky(t, stickyDir, "p", "p3", v4, v6), "10.0.0.4/29 fd00::4/64")

	// The pod's container has ended without a DEL, so its lease still exists.
	r := sticky(t, stickyDir, "p", "p4", v4, v6)
	r.InUse = func(l Lease) bool { return l.Container != "p3" }
	expect(t, s, r, "10.0.0.4/29 fd00::4/64")

	// If no address is free, Reserve gives out the kept addresses in the order in which their
	// keeping times end.
	release(t, s, "q2", "p4")
	expect(t, s, sticky(t, stickyDir, "", "y", v4, v6), "10.0.0.6/29 fd00::6/64")
	expect(t, s, sticky(t, stickyDir, "", "z", v4, v6), "10.0.0.2/29 fd00::7/64")
	if _, err := s.Available(sticky(t, stickyDir, "", "z", v4)); err != nil {
		t.Errorf("available: %v", err)
	}
	expect(t, s, sticky(t, stickyDir, "", "a", v4, v6), "10.0.0.3/29 fd00::8/64")
	expect(t, s, sticky(t, stickyDir, "p", "p5", v4, v6), "10.0.0.4/29 fd00::4/64")
	expect(t, s, sticky(t, stickyDir, "q", "q3", v6), "fd00::3/64")
	if _, err := s.Available(sticky(t, stickyDir, "", "z", v4)); !errors.Is(err, ErrExhausted) {
		t.Errorf("available: got %v, want ErrExhausted", err)
	}
}

// TestStickyExpires checks that a kept address is free after its keeping time. Its pod then gets
// another address.
func TestStickyExpires(t *testing.T) {
	s, stickyDir := openTemp(t), t.TempDir()
	for i := range 40 {
		r := sticky(t, stickyDir, fmt.Sprint(i), fmt.Sprint(i), "10.0.0.0/24")
		r.Sticky.For = time.Nanosecond
		if _, err := s.Reserve(r); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 40 {
		release(t, s, fmt.Sprint(i))
	}
	for range 3 { // each call frees only some of the expired addresses
		expect(t, s, request(t, "x", "fd00::/64"), "fd00::2/64")
	}
	if all, err := s.Leases("net"); len(all) != 1 || err != nil {
		t.Errorf("%d leases, %v, want 1: %v", len(all), err, all)
	}
	r := sticky(t, stickyDir, "7", "new", "10.0.0.0/24")
	expect(t, s, r, "10.0.0.42/24")
}

// TestStickyReboot checks that the store keeps addresses for pods after a reboot of the host, and
// that each pod gets its address again.
func TestStickyReboot(t *testing.T) {
	dir, stickyDir := t.TempDir(), t.TempDir()
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
			reserve(s, sticky(t, stickyDir, pod, fmt.Sprint(i), v4, v6))
		}
		release(t, s, "1")
	})
	again("two", func(s *Store) {
		expect(t, s, sticky(t, stickyDir, "c", "x", v4, v6), "10.0.0.4/29 fd00::4/64")
		expect(t, s, sticky(t, stickyDir, "", "y", v4, v6), "10.0.0.5/29 fd00::5/64")
		expect(t, s, sticky(t, stickyDir, "b", "z", v4, v6), "10.0.0.3/29 fd00::3/64")
	})
	again("three", func(s *Store) { // y has no pod, so y gets the address that was kept for a, and a gets another address
		expect(t, s, request(t, "y", v4, v6), "10.0.0.2/29 fd00::2/64")
		expect(t, s, sticky(t, stickyDir, "b", "z", v4, v6), "10.0.0.3/29 fd00::3/64")
		expect(t, s, sticky(t, stickyDir, "a", "w", v4, v6), "10.0.0.5/29 fd00::5/64")
	})
	if err := os.WriteFile(filepath.Join(stickyDir, stickyfile.Name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again("four", func(s *Store) {
		_, err := s.Reserve(sticky(t, stickyDir, "a", "w", v4, v6))
		want := "sticky addresses: " + filepath.Join(stickyDir, stickyfile.Name) + ": the file is damaged (it is 0 bytes long); delete it: each name then gets another address once"
		if !errors.Is(err, ErrDamaged) || err.Error() != want {
			t.Errorf("got %v, want ErrDamaged: %s", err, want)
		}
		expect(t, s, request(t, "w", v4, v6), "10.0.0.2/29 fd00::2/64")
	})
}

// TestStickyRebootUnnamed checks the first request after a reboot of the host. If the request has
// no pod's name, it must not get an address that belongs to such a name.
func TestStickyRebootUnnamed(t *testing.T) {
	dir, stickyDir := t.TempDir(), t.TempDir()
	unnamed := request(t, "first", "10.0.0.0/29")
	unnamed.StickyDir, unnamed.Sticky.For = stickyDir, time.Hour
	for _, id := range []string{"one", "two"} {
		s := boot(t, id).tryOpen(t, dir)
		if id == "two" {
			expect(t, s, unnamed, "10.0.0.3/29")
		}
		expect(t, s, sticky(t, stickyDir, "pod", "p", "10.0.0.0/29"), "10.0.0.2/29")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStickyTwoFolders checks the case that two sticky files have different addresses for the name
// of a pod. The pod must keep the address that it has in the store, and the other address must be
// free.
func TestStickyTwoFolders(t *testing.T) {
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

// TestStickyDamaged checks the error about a record in the sticky file that cannot be decoded. The
// error must name the sticky file, not the store.
func TestStickyDamaged(t *testing.T) {
	s, stickyDir := openTemp(t), t.TempDir()
	expect(t, s, sticky(t, stickyDir, "a", "1", "10.0.0.0/24"), "10.0.0.2/24")
	f, err := stickyfile.Open(stickyDir, s.dir())
	if err == nil {
		err = errors.Join(f.Save("net", map[string][]byte{"ns/b\x00eth0": []byte("short")}), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = openTemp(t).Reserve(sticky(t, stickyDir, "a", "1", "10.0.0.0/24"))
	if !errors.Is(err, ErrDamaged) || !errors.Is(err, ErrSticky) || !strings.Contains(err.Error(), filepath.Join(stickyDir, stickyfile.Name)+": ") {
		t.Errorf("got %v, want ErrDamaged of %s", err, stickyDir)
	}
}

// TestStickyOwnFolder checks that the sticky file can be in the folder of the store, which is
// locked already.
func TestStickyOwnFolder(t *testing.T) {
	dir := t.TempDir()
	s := tryOpen(t, dir)
	defer s.Close()
	expect(t, s, sticky(t, dir, "a", "1", "10.0.0.0/24"), "10.0.0.2/24")
}

// TestStickyWrites checks that Reserve writes the sticky file only for the name of a new pod.
func TestStickyWrites(t *testing.T) {
	s, stickyDir := openTemp(t), t.TempDir()
	written := func() time.Time {
		info, err := os.Stat(filepath.Join(stickyDir, stickyfile.Name))
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime()
	}
	expect(t, s, sticky(t, stickyDir, "a", "1", "10.0.0.0/24"), "10.0.0.2/24")
	first := written()
	release(t, s, "1")
	expect(t, s, sticky(t, stickyDir, "a", "2", "10.0.0.0/24"), "10.0.0.2/24")
	expect(t, s, sticky(t, stickyDir, "", "3", "10.0.0.0/24"), "10.0.0.3/24")
	if !written().Equal(first) {
		t.Error("the file was written without a new name")
	}
	expect(t, s, sticky(t, stickyDir, "b", "4", "10.0.0.0/24"), "10.0.0.4/24")
	if written().Equal(first) {
		t.Error("the file was not written for a new name")
	}
}
