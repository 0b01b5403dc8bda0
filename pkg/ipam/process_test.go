package ipam

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bridgeveth/bridgeveth/internal/ptrace"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
)

// workerVar makes this test's executable a process that uses a store: it holds the
// worker's name, a folder and what to do.
const workerVar = "IPAM_TEST_WORKER"

func TestMain(m *testing.M) {
	words := strings.Fields(os.Getenv(workerVar))
	switch {
	case len(words) == 0:
		os.Exit(m.Run())
	case words[2] == "reserve":
		workReserve(words[0], words[1])
	case words[2] == "sticky":
		workSticky(words[0], words[1], words[3])
	case words[2] == "once":
		workOnce(words[0], words[1], words[3:])
	default:
		workForever(words[0], words[1])
	}
}

// die ends a worker.
func die(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// workerSets are what workers ask for.
func workerSets() []Set {
	var t testing.T // complete only fails on ranges that are wrong
	return []Set{{complete(&t, "10.0.0.0/22")}, {complete(&t, "fd00::/64")}}
}

// workReserve reserves for 20 containers, each in an Open of its own, and prints
// what it was given.
func workReserve(name, dir string) {
	for i := range 20 {
		s, err := Open(dir, time.Minute)
		die(err)
		leases, err := s.Reserve(Request{Attachment: eth0(fmt.Sprint(name, "-", i)), Sets: workerSets()})
		die(err)
		die(s.Close())
		fmt.Println(addresses(leases))
	}
}

// workSticky reserves for 10 pods, whose addresses are remembered in a folder.
func workSticky(name, dir, memory string) {
	var t testing.T // see workerSets
	for i := range 10 {
		s, err := Open(dir, time.Minute)
		die(err)
		pod := fmt.Sprint(name, "-", i)
		_, err = s.Reserve(sticky(&t, memory, pod, pod, "10.0.0.0/24"))
		die(err)
		die(s.Close())
	}
}

// workForever reserves, frees and cleans up at random until it is killed.
func workForever(name, dir string) {
	for {
		s, err := Open(dir, time.Minute)
		die(err)
		a := Attachment{Network: "net", Container: fmt.Sprint(name, "-", rand.IntN(50)), Interface: "eth0"}
		switch n := rand.IntN(20); {
		case n < 12:
			_, err = s.Reserve(Request{Attachment: a, Sets: workerSets()})
		case n < 19:
			err = s.Release(a)
		default:
			err = s.ReleaseExcept("net", []Attachment{a})
		}
		die(err)
		die(s.Close())
	}
}

// workOnce reserves, of the sets of a layout, or frees, once.
func workOnce(name, dir string, words []string) {
	layout, err := strconv.Atoi(words[1])
	die(err)
	var t testing.T // see workerSets
	s, err := opener{bootIDFile: words[0]}.open(dir, time.Minute)
	die(err)
	r := request(&t, name, layouts[layout]...)
	if words[2] == "free" {
		die(s.Release(r.Attachment))
	} else {
		_, err := s.Reserve(r)
		die(err)
	}
	die(s.Close())
}

// killOnce runs workOnce and kills it somewhere. begin and end are how many system
// calls it makes before the first that matters, and in all, by rough measure.
func killOnce(t *testing.T, random *rand.Rand, words ...string) {
	t.Helper()
	env := append(os.Environ(), workerVar+"="+strings.Join(words, " "))
	const begin, end = 150, 420
	if _, err := ptrace.Kill(begin+random.IntN(end-begin), []string{"/proc/self/exe"}, env, []*os.File{nil, nil, nil}); err != nil {
		t.Fatal(err)
	}
}

// startWorker starts a worker, whose output is in out.
func startWorker(t *testing.T, out io.Writer, words ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), workerVar+"="+strings.Join(words, " "))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// TestProcesses has 50 processes reserve at once, the store's making included.
func TestProcesses(t *testing.T) {
	const processes, each = 50, 20
	dir := t.TempDir()
	var outputs [processes]strings.Builder
	var wait sync.WaitGroup
	for i := range processes {
		cmd := startWorker(t, &outputs[i], fmt.Sprint("w", i), dir, "reserve")
		wait.Go(func() {
			if err := cmd.Wait(); err != nil {
				t.Errorf("worker %d: %v: %s", i, err, outputs[i].String())
			}
		})
	}
	wait.Wait()
	given := map[string]bool{}
	for i := range outputs {
		for lines := bufio.NewScanner(strings.NewReader(outputs[i].String())); lines.Scan(); {
			for _, a := range strings.Fields(lines.Text()) {
				if given[a] {
					t.Errorf("%s was given twice", a)
				}
				given[a] = true
			}
		}
	}
	s := tryOpen(t, dir)
	defer s.Close()
	checkSound(t, s)
	leases, err := s.Leases("net")
	if want := 2 * processes * each; len(given) != want || len(leases) != want || err != nil {
		t.Errorf("given %d, leased %d, %v, want %d", len(given), len(leases), err, want)
	}
}

// TestStickyProcesses has processes with a store each remember names in one folder, the
// memory's making included.
func TestStickyProcesses(t *testing.T) {
	const processes, each = 8, 10
	for range 5 {
		memory := filepath.Join(t.TempDir(), "memory")
		var outputs [processes]strings.Builder
		var wait sync.WaitGroup
		for i := range processes {
			cmd := startWorker(t, &outputs[i], fmt.Sprint("w", i), t.TempDir(), "sticky", memory)
			wait.Go(func() {
				if err := cmd.Wait(); err != nil {
					t.Errorf("worker %d: %v: %s", i, err, outputs[i].String())
				}
			})
		}
		wait.Wait()
		s := openTemp(t)
		if _, err := s.Reserve(sticky(t, memory, "new", "new", "10.0.1.0/24")); err != nil {
			t.Fatal(err)
		}
		remembered := 0
		err := s.file.View(func(tx *boltfile.Tx) error {
			remembered = tx.Bucket([]byte("networks")).Bucket([]byte("net")).Bucket([]byte("names")).Stats().KeyN
			return nil
		})
		if want := processes*each + 1; remembered != want || err != nil {
			t.Errorf("%d names are remembered, %v, want %d", remembered, err, want)
		}
	}
}

// TestKilled kills processes at random instants, some while they make the store.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	for round := range 60 {
		if round%3 == 0 {
			dir = t.TempDir()
		}
		var out strings.Builder
		cmd := startWorker(t, &out, "w", dir, "forever")
		time.Sleep(time.Duration(rand.IntN(25_000)) * time.Microsecond)
		_ = cmd.Process.Kill() // it may have ended by itself, which the output shows
		_ = cmd.Wait()
		if out.Len() > 0 {
			t.Fatalf("worker: %s", out.String())
		}
		s := tryOpen(t, dir)
		checkSound(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
