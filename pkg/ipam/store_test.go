package ipam

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

const wait = 20 * time.Second

// set is one range of a subnet.
func set(t testing.TB, subnet string) Set {
	t.Helper()
	r, errs := parseRange(t, subnet, "", "", "").Complete()
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return Set{r}
}

func testStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, wait)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// on names container number i.
func on(i int) Attachment { return Attachment{"net", fmt.Sprintf("c%d", i), "eth0"} }

// reserve returns the addresses that an attachment gets.
func reserve(s *Store, a Attachment, sets ...Set) ([]string, error) {
	leases, err := s.Reserve(Request{Attachment: a, Sets: sets})
	var got []string
	for _, l := range leases {
		got = append(got, l.Address.Addr().String())
	}
	return got, err
}

func mustReserve(t testing.TB, s *Store, a Attachment, sets ...Set) []string {
	t.Helper()
	got, err := reserve(s, a, sets...)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestReserveAgain(t *testing.T) {
	s := testStore(t, t.TempDir())
	four, six := set(t, "10.1.0.0/24"), set(t, "fd00::/64")
	first := mustReserve(t, s, on(1), four, six)
	if diff := cmp.Diff([]string{"10.1.0.2", "fd00::2"}, first); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	mustReserve(t, s, on(2), four, six)
	if diff := cmp.Diff(first, mustReserve(t, s, on(1), four, six)); diff != "" {
		t.Errorf("a repeated call (-first +second):\n%s", diff)
	}
	other := Attachment{"other", "c1", "eth0"}
	if diff := cmp.Diff(first, mustReserve(t, s, other, four, six)); diff != "" {
		t.Errorf("another network is not independent (-want +got):\n%s", diff)
	}
	// The ranges of its network have changed, so it gets others.
	if got := mustReserve(t, s, on(1), set(t, "10.2.0.0/24")); !slices.Equal(got, []string{"10.2.0.2"}) {
		t.Errorf("got %v", got)
	}
	consistent(t, s)
}

// TestRest shows that a freed address comes last.
func TestRest(t *testing.T) {
	s := testStore(t, t.TempDir())
	pool := set(t, "10.1.0.0/29") // .2 to .6
	var order []string
	take := func(i int) { order = append(order, mustReserve(t, s, on(i), pool)...) }
	give := func(i int) {
		if err := s.Release(on(i)); err != nil {
			t.Fatal(err)
		}
	}
	take(1)
	give(1)
	take(2)
	take(3)
	give(3)
	give(2)
	give(2) // once more
	take(4)
	take(5)
	take(6) // all have been used now
	take(7)
	take(8)
	want := []string{"10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.2", "10.1.0.4", "10.1.0.3"}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	consistent(t, s)
}

func TestExhausted(t *testing.T) {
	s := testStore(t, t.TempDir())
	wide, narrow := set(t, "10.1.0.0/24"), set(t, "10.2.0.0/30")
	mustReserve(t, s, on(1), wide, narrow)
	_, err := reserve(s, on(2), wide, narrow)
	if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "10.2.0.1-10.2.0.2 (1 of 1 leased)") {
		t.Errorf("got %v", err)
	}
	if held, err := s.Held(on(2)); err != nil || len(held) > 0 {
		t.Errorf("half of a reservation is left: %v, %v", held, err)
	}
	if free, err := s.Free("net", narrow); err != nil || free != 0 {
		t.Errorf("%d free, %v; want 0", free, err)
	}
	// Two ranges in a set are one pool.
	if got := mustReserve(t, s, on(2), wide, append(narrow, set(t, "10.3.0.0/24")...)); got[1] != "10.3.0.2" {
		t.Errorf("got %v", got)
	}
	// Those that are not alive give way, and only they.
	leases, err := s.Reserve(Request{Attachment: on(3), Sets: []Set{narrow}, Alive: func(l Lease) bool { return l.Container != "c1" }})
	if err != nil || leases[0].Address != netip.MustParsePrefix("10.2.0.2/30") {
		t.Errorf("got %v, %v", leases, err)
	}
	if held, _ := s.Held(on(2)); len(held) != 2 {
		t.Errorf("a living attachment has lost its leases: %v", held)
	}
	consistent(t, s)
}

func TestRetain(t *testing.T) {
	s := testStore(t, t.TempDir())
	pool := set(t, "10.1.0.0/24")
	for i := range 5 {
		mustReserve(t, s, on(i), pool)
	}
	other := Attachment{"other", "c9", "eth0"}
	mustReserve(t, s, other, pool)
	if err := s.Retain("net", []Attachment{on(1), on(3), on(99)}); err != nil {
		t.Fatal(err)
	}
	leases, err := s.Leases("net")
	var left []string
	for _, l := range leases {
		left = append(left, l.Container)
	}
	if diff := cmp.Diff([]string{"c1", "c3"}, left); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if held, _ := s.Held(other); len(held) != 1 {
		t.Error("another network has lost its lease")
	}
	consistent(t, s)
}

func TestNamespaceMoves(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, t.TempDir())
	path := filepath.Join(dir, "ns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first := NamespaceAt(path)
	if first.Gone() || NamespaceAt(dir+"/none").Gone() {
		t.Error("a namespace that is there, or was never seen, is gone")
	}
	r := Request{Attachment: on(1), Sets: []Set{set(t, "10.1.0.0/24")}, Namespace: first}
	if _, err := s.Reserve(r); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if !first.Gone() {
		t.Error("a namespace without its file is not gone")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !first.Gone() {
		t.Error("a namespace in whose place there is another is not gone")
	}
	r.Namespace = NamespaceAt(path)
	leases, err := s.Reserve(r)
	if err != nil || leases[0].Namespace != r.Namespace {
		t.Errorf("got %v, %v", leases, err)
	}
}

// TestReboot shows that leases end with their boot.
func TestReboot(t *testing.T) {
	dir := t.TempDir()
	pool := set(t, "10.1.0.0/30")
	for _, boot := range []string{"first", "second"} {
		s, err := open(dir, boot, wait)
		if err != nil {
			t.Fatal(err)
		}
		mustReserve(t, s, Attachment{"net", boot, "eth0"}, pool)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	files, _ := filepath.Glob(dir + "/*")
	if diff := cmp.Diff([]string{dir + "/leases-second.db"}, files); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	testStore(t, dir)
	_, err := Open(dir, 10*time.Millisecond)
	if !errors.Is(err, flock.ErrTimeout) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("got %v, want a timeout that names this process", err)
	}
}

// TestDamaged does one thing after another to the file: an error that names it,
// never a crash.
func TestDamaged(t *testing.T) {
	for _, tt := range []struct {
		name  string
		harm  func(path string, size int64) error
		want  error
		later bool // it shows only when leases are read
	}{
		{"empty", func(path string, _ int64) error { return os.Truncate(path, 0) }, ErrDamaged, false},
		{"one page", func(path string, _ int64) error { return os.Truncate(path, 4096) }, ErrDamaged, false},
		{"half", func(path string, size int64) error { return os.Truncate(path, size/2) }, ErrDamaged, true},
		{"one byte short of two pages", func(path string, _ int64) error { return os.Truncate(path, 8191) }, ErrDamaged, false},
		{"noise", func(path string, size int64) error { return scribble(path, 0, size) }, ErrDamaged, false},
		{"noise behind the first pages", func(path string, size int64) error { return scribble(path, 8192, size) }, ErrDamaged, true},
		{"newer", func(path string, _ int64) error { return setFormat(path, "2") }, ErrNewer, false},
		{"a folder", func(path string, _ int64) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			pool := set(t, "10.1.0.0/16")
			s, err := Open(dir, wait)
			if err != nil {
				t.Fatal(err)
			}
			fill(t, s, pool, 500)
			path := s.path
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err == nil {
				err = tt.harm(path, info.Size())
			}
			if err != nil {
				t.Fatal(err)
			}
			s, err = Open(dir, wait)
			if err == nil && tt.later {
				_, err = s.Leases("net")
				if err == nil {
					_, err = reserve(s, on(1000), pool)
				}
				_ = s.Close()
			}
			if err == nil {
				t.Fatal("it opens")
			}
			if tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %v that names the file", err, tt.want)
			}
			free, err := flock.Acquire(dir, flock.Exclusive, 0)
			if err != nil {
				t.Errorf("the store is still locked: %v", err)
			}
			free.Unlock()
		})
	}
}

// scribble overwrites part of a file with noise.
func scribble(path string, from, to int64) error {
	noise := make([]byte, to-from)
	source := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(source.Uint32())
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(noise, from)
	return errors.Join(err, f.Close())
}

func setFormat(path, format string) error {
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bolt.Tx) error { return tx.Bucket(formatBucket).Put(formatKey, []byte(format)) })
	return errors.Join(err, db.Close())
}

// fill leases so many addresses in one transaction.
func fill(t testing.TB, s *Store, pool Set, count int) {
	t.Helper()
	err := s.update("net", func(n network) error {
		for i := range count {
			r := Request{Attachment: Attachment{"net", fmt.Sprintf("filler%d", i), "eth0"}}
			lease, err := n.reserve(pool, r)
			if err == nil {
				err = n.hold(r.Attachment, []Lease{lease})
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// consistent compares what the store says in several places: leases, attachments
// and counts.
func consistent(t testing.TB, s *Store) {
	t.Helper()
	err := s.view("net", func(n network) error {
		leases, err := n.leases()
		if err != nil {
			return err
		}
		counts := map[string]uint64{}
		for _, l := range leases {
			counts[l.Range]++
			held, err := n.held(l.Attachment)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(held, func(h Lease) bool { return h.Address == l.Address }) {
				t.Errorf("%s is leased to %v, which holds %v", l.Address, l.Attachment, held)
			}
		}
		attached := 0
		err = n.byAttachment.ForEach(func(key, _ []byte) error {
			container, ifname, _ := strings.Cut(string(key), "\x00")
			held, err := n.held(Attachment{"net", container, ifname})
			attached += len(held)
			return err
		})
		if attached != len(leases) {
			t.Errorf("%d leases, %d held by attachments", len(leases), attached)
		}
		return errors.Join(err, n.ranges.ForEachBucket(func(key []byte) error {
			start, end, _ := strings.Cut(string(key), "-")
			r := Range{Start: netip.MustParseAddr(start), End: netip.MustParseAddr(end)}
			if got := n.count(r); got != counts[string(key)] {
				t.Errorf("range %s counts %d leases, has %d", key, got, counts[string(key)])
			}
			return nil
		}))
	})
	if err != nil {
		t.Error(err)
	}
}

// TestRandom drives the store by chance beside a model of the rules.
func TestRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	pool := set(t, "10.1.0.0/28") // 13 addresses
	boot := 0
	s, err := open(dir, "0", wait)
	if err != nil {
		t.Fatal(err)
	}
	model := map[Attachment]string{}
	for range 3000 {
		a := on(chance.IntN(20))
		switch chance.IntN(10) {
		case 0, 1, 2, 3, 4:
			got, err := reserve(s, a, pool)
			held, again := model[a]
			switch {
			case again && (err != nil || got[0] != held):
				t.Fatalf("%v holds %s, and got %v, %v", a, held, got, err)
			case !again && len(model) == 13:
				if !errors.Is(err, ErrExhausted) {
					t.Fatalf("got %v, %v from a full range", got, err)
				}
			case err != nil:
				t.Fatal(err)
			default:
				for other, address := range model {
					if address == got[0] && other != a {
						t.Fatalf("%s is given to %v and %v", address, other, a)
					}
				}
				model[a] = got[0]
			}
		case 5, 6, 7:
			if err := s.Release(a); err != nil {
				t.Fatal(err)
			}
			delete(model, a)
		case 8:
			keep := []Attachment{}
			for a := range model {
				if chance.IntN(2) == 0 {
					keep = append(keep, a)
				} else {
					delete(model, a)
				}
			}
			if err := s.Retain("net", keep); err != nil {
				t.Fatal(err)
			}
		case 9:
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if chance.IntN(10) == 0 { // reboot
				boot++
				model = map[Attachment]string{}
			}
			if s, err = open(dir, fmt.Sprint(boot), wait); err != nil {
				t.Fatal(err)
			}
		}
		if free, err := s.Free("net", pool); err != nil || free != uint64(13-len(model)) {
			t.Fatalf("%d are free, %v; the model has %d", free, err, 13-len(model))
		}
	}
	consistent(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMain lets the test binary be the processes of TestProcesses and TestKilled.
func TestMain(m *testing.M) {
	if dir := os.Getenv("IPAM_TEST_DIR"); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(m.Run())
}

// child reserves and, if told to, releases again for ever.
func child(dir string) int {
	r, _ := Range{Subnet: netip.MustParsePrefix("10.1.0.0/25")}.Complete()
	for {
		s, err := Open(dir, wait)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		a := Attachment{"net", fmt.Sprintf("pid%d", os.Getpid()), "eth0"}
		got, err := reserve(s, a, Set{r})
		if os.Getenv("IPAM_TEST_LOOP") != "" && err == nil {
			err = s.Release(a)
		}
		if err := errors.Join(err, s.Close()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if os.Getenv("IPAM_TEST_LOOP") == "" {
			fmt.Println(got[0])
			return 0
		}
	}
}

func process(t testing.TB, dir string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), append(env, "IPAM_TEST_DIR="+dir)...)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestProcesses lets 50 processes reserve at once.
func TestProcesses(t *testing.T) {
	dir := t.TempDir()
	outputs := make([]strings.Builder, 50)
	var started []*exec.Cmd
	for i := range outputs {
		cmd := process(t, dir)
		cmd.Stdout = &outputs[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		started = append(started, cmd)
	}
	given := map[string]bool{}
	for i, cmd := range started {
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		given[outputs[i].String()] = true
	}
	if len(given) != len(outputs) {
		t.Errorf("%d addresses for %d processes", len(given), len(outputs))
	}
	consistent(t, testStore(t, dir))
}

// TestKilled kills processes at any instant and opens what they leave.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	chance := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for range 60 {
		if chance.IntN(6) == 0 { // so that a new one has to be made
			files, _ := filepath.Glob(dir + "/leases-*")
			for _, f := range files {
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
		}
		cmd := process(t, dir, "IPAM_TEST_LOOP=yes")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(chance.IntN(12000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		s, err := Open(dir, wait)
		if err != nil {
			t.Fatal(err)
		}
		consistent(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkStore opens the store, reserves, releases and closes it, beside so many
// leases.
func BenchmarkStore(b *testing.B) {
	for _, count := range []int{0, 1000, 65000, 1000000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			if count > 65000 && os.Getenv("BENCH_LARGE") == "" {
				b.Skip("takes half a minute to fill; set BENCH_LARGE=1")
			}
			dir := b.TempDir()
			pool := set(b, "10.0.0.0/12")
			s, err := Open(dir, wait)
			if err != nil {
				b.Fatal(err)
			}
			fill(b, s, pool, count)
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				s, err := Open(dir, wait)
				if err != nil {
					b.Fatal(err)
				}
				mustReserve(b, s, on(1), pool)
				if err := errors.Join(s.Release(on(1)), s.Close()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// FuzzStore opens arbitrary bytes as a store: a result or an error, never a crash.
func FuzzStore(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("leases"))
	f.Add(make([]byte, 16384))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "leases-boot.db"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := open(dir, "boot", wait)
		if err != nil {
			return
		}
		got, err := reserve(s, on(1), set(t, "10.1.0.0/24"))
		if (err == nil) != (len(got) == 1) {
			t.Errorf("got %v and %v", got, err)
		}
		_ = s.Close() // the lock goes in any case
	})
}
