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

// workerVar is an environment variable. If it is set, the test's executable runs as a worker, a
// process that uses a store. The words in the variable are the name of the worker, the folder of
// the store and the task.
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

// die ends a worker process if err is not nil.
func die(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// workerSets returns the address sets that the workers request.
func workerSets() []Set {
	var t testing.T // complete uses it only to report invalid ranges, and these are valid
	return []Set{{complete(&t, "10.0.0.0/22")}, {complete(&t, "fd00::/64")}}
}

// workReserve reserves addresses for 20 containers and prints the addresses. It opens the store for
// each container anew.
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

// workSticky reserves sticky addresses for 10 pods.
func workSticky(name, dir, stickyDir string) {
	var t testing.T // see workerSets
	for i := range 10 {
		s, err := Open(dir, time.Minute)
		die(err)
		pod := fmt.Sprint(name, "-", i)
		_, err = s.Reserve(sticky(&t, stickyDir, pod, pod, "10.0.0.0/24"))
		die(err)
		die(s.Close())
	}
}

// workForever makes random calls of the Store until the process is killed.
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

// workOnce reserves or frees the addresses of one container. The parameter words has three
// elements: the file with the ID of the boot, the index in the list configurations, and the verb
// "reserve" or "free".
func workOnce(name, dir string, words []string) {
	configuration, err := strconv.Atoi(words[1])
	die(err)
	var t testing.T // see workerSets
	s, err := opener{bootIDFile: words[0]}.open(dir, time.Minute)
	die(err)
	r := request(&t, name, configurations[configuration]...)
	if words[2] == "free" {
		die(s.Release(r.Attachment))
	} else {
		_, err := s.Reserve(r)
		die(err)
	}
	die(s.Close())
}

// killOnce runs workOnce in a process, and kills the process at a random system call between the
// constants begin and end. The process makes about begin system calls before it changes the store,
// and about end system calls in total.
func killOnce(t *testing.T, random *rand.Rand, words ...string) {
	t.Helper()
	env := append(os.Environ(), workerVar+"="+strings.Join(words, " "))
	const begin, end = 150, 420
	if _, err := ptrace.Kill(begin+random.IntN(end-begin), []string{"/proc/self/exe"}, env, []*os.File{nil, nil, nil}); err != nil {
		t.Fatal(err)
	}
}

// startWorker starts a worker process that writes its output to out.
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

// TestProcesses checks that 50 processes get different addresses if they reserve addresses at the
// same time. The processes also create the store at the same time.
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
					t.Errorf("%s was given out twice", a)
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

// TestStickyProcesses checks that no pod's name is lost if several processes add names to one
// sticky file at the same time. Each process has a store of its own. The processes also create the
// sticky file.
func TestStickyProcesses(t *testing.T) {
	const processes, each = 8, 10
	for range 5 {
		stickyDir := filepath.Join(t.TempDir(), "sticky")
		var outputs [processes]strings.Builder
		var wait sync.WaitGroup
		for i := range processes {
			cmd := startWorker(t, &outputs[i], fmt.Sprint("w", i), t.TempDir(), "sticky", stickyDir)
			wait.Go(func() {
				if err := cmd.Wait(); err != nil {
					t.Errorf("worker %d: %v: %s", i, err, outputs[i].String())
				}
			})
		}
		wait.Wait()
		s := openTemp(t)
		if _, err := s.Reserve(sticky(t, stickyDir, "new", "new", "10.0.1.0/24")); err != nil {
			t.Fatal(err)
		}
		names := 0
		err := s.file.View(func(tx *boltfile.Tx) error {
			names = tx.Bucket([]byte("networks")).Bucket([]byte("net")).Bucket([]byte("names")).Stats().KeyN
			return nil
		})
		if want := processes*each + 1; names != want || err != nil {
			t.Errorf("the file has %d names, %v, want %d", names, err, want)
		}
	}
}

// TestKilled checks that the store stays consistent if processes are killed at random times. Some
// of them are killed while they create the store.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	for round := range 60 {
		if round%3 == 0 {
			dir = t.TempDir()
		}
		var out strings.Builder
		cmd := startWorker(t, &out, "w", dir, "forever")
		time.Sleep(time.Duration(rand.IntN(25_000)) * time.Microsecond)
		_ = cmd.Process.Kill() // the process may have ended with an error, which the output shows
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
