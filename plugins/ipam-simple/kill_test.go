package ipamsimple

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/internal/ptrace"
)

// killedHost is a host on which the tests kill the plugin. Its addresses are sticky, and host-local
// has reserved an address that ipam-simple imports.
type killedHost struct{ dir, conf string }

// newKilledHost makes a host on which host-local has reserved 10.1.0.3 for the container "running".
func newKilledHost(t *testing.T) killedHost {
	t.Helper()
	dir := t.TempDir()
	reserved := filepath.Join(dir, "host-local", "net", "10.1.0.3")
	err := os.MkdirAll(filepath.Dir(reserved), 0o755)
	if err == nil {
		err = os.WriteFile(reserved, []byte("running\r\neth0"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return killedHost{dir, network(fmt.Sprintf(`{"subnet": "10.1.0.0/24", "ranges": [[{"subnet": "fd00::/64"}]],
		"dataDir": "%[1]s/leases", "importFrom": "%[1]s/host-local", "sticky": "1h", "stickyDir": "%[1]s/sticky"}`, dir))}
}

// run runs a verb in a separate process, and returns how the process has ended. If before is not
// nil, it passes before to ptrace.Run.
func (h killedHost) run(t *testing.T, verb, container string, before func(ptrace.Call) bool) unix.WaitStatus {
	t.Helper()
	stdin, err := os.CreateTemp(h.dir, "conf")
	if err == nil {
		_, err = stdin.WriteString(h.conf)
	}
	if err == nil {
		_, err = stdin.Seek(0, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	env := append(os.Environ(), pluginVar+"=1", "CNI_COMMAND="+verb, "CNI_CONTAINERID="+container, "CNI_IFNAME=eth0",
		"CNI_NETNS=/run/netns/none", "CNI_PATH=/opt/cni/bin", "CNI_ARGS=K8S_POD_NAMESPACE=ns;K8S_POD_NAME="+container)
	if before == nil {
		before = func(ptrace.Call) bool { return true }
	}
	status, err := ptrace.Run([]string{"/proc/self/exe"}, env, []*os.File{stdin, nil, nil}, before)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// sound fails the test if bbolt finds damage in the store or in the sticky file.
func (h killedHost) sound(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{"leases/*.db", "sticky/*.db"} {
		files, err := filepath.Glob(filepath.Join(h.dir, pattern))
		if err != nil || len(files) > 1 {
			t.Fatal(files, err)
		}
		for _, path := range files {
			// The test opens the file for writing, although it only reads. After opening for
			// reading, Close of bbolt does not unlock the file. A process that is just being
			// started may have a copy of the descriptor, and this copy would keep the lock.
			db, err := bolt.Open(path, 0, nil)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			err = db.View(func(tx *bolt.Tx) error {
				for err := range tx.Check() {
					t.Errorf("%s: %v", path, err)
				}
				return nil
			})
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestKilledAnywhere kills ADD and DEL at each of their system calls that can change a file, on a host
// without a store and on a host with a store. After each kill, the store must be consistent. It must have
// either the leases from before the call of the verb, or the leases from after a complete call. A second
// call must complete the first.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, verb    string
		fresh         bool
		before, after string
	}{
		{"first ADD", "ADD", true, "", "running,victim,victim"},
		{"ADD", "ADD", false, "other,other,running", "other,other,running,victim,victim"},
		{"DEL", "DEL", false, "other,other,running,victim,victim", "other,other,running"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var h killedHost
			victim := func() *skel.CmdArgs {
				call := args(t, "victim", h.conf)
				call.Args = "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=victim"
				return call
			}
			outcomes := map[string]int{}
			call := func(before func(ptrace.Call) bool) { h.run(t, tt.verb, "victim", before) }
			ptrace.KillEach(t, 0, ptrace.Killing{
				Prepare: func() {
					h = newKilledHost(t)
					if !tt.fresh {
						add(t, args(t, "other", h.conf))
					}
					if tt.verb == "DEL" {
						add(t, victim())
					}
				},
				Run: call,
				Cure: func(before func(ptrace.Call) bool) {
					h.sound(t)
					left := h.holders(t)
					outcomes[left]++
					if left != tt.before && left != tt.after {
						t.Errorf("leases of %s after a kill, want %s or %s", left, tt.before, tt.after)
					}
					call(before)
				},
				Check: func(when string) {
					h.sound(t)
					if got := h.holders(t); got != tt.after {
						t.Errorf("%s: leases of %s, want %s", when, got, tt.after)
					}
					if tt.fresh { // the host had no store before, so the container must get the first addresses
						if diff := cmp.Diff([]string{"10.1.0.2/24", "fd00::2/64"}, add(t, victim())); diff != "" {
							t.Errorf("%s (-want +got):\n%s", when, diff)
						}
					}
					next := add(t, args(t, "next", h.conf))
					if got := h.holders(t); strings.Count(got, "next") != 2 || strings.Contains(strings.Join(next, " "), "10.1.0.3/") {
						t.Errorf("%s: the next container got %v, leases of %s", when, next, got)
					}
				},
			})
			if outcomes[tt.before] < 5 || outcomes[tt.after] < 3 {
				t.Errorf("leases after each kill: %v", outcomes)
			}
		})
	}
}

// holders returns the container of each lease. A lease without a container is a sticky address that
// is kept for its pod.
func (h killedHost) holders(t *testing.T) string {
	t.Helper()
	return strings.Join(attached(t, filepath.Join(h.dir, "leases")), ",")
}

// TestKilledUpgrade kills ADD and DEL while they convert a store of the preceding format, and checks
// that no lease is lost or given out twice.
func TestKilledUpgrade(t *testing.T) {
	t.Parallel()
	for verb, want := range map[string]string{"ADD": "other,other,running,victim,victim", "DEL": "other,other,running"} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			var h killedHost
			call := func(before func(ptrace.Call) bool) {
				if status := h.run(t, verb, "victim", before); status != 0 && before == nil {
					t.Errorf("%s ended with status %#x", verb, status)
				}
			}
			ptrace.KillEach(t, 8, ptrace.Killing{
				Prepare: func() {
					h = newKilledHost(t)
					add(t, args(t, "other", h.conf))
					if verb == "DEL" {
						add(t, args(t, "victim", h.conf))
					}
					h.older(t)
				},
				Run: call, Cure: call,
				Check: func(when string) {
					h.sound(t)
					if got := h.holders(t); got != want {
						t.Errorf("%s: leases of %s, want %s", when, got, want)
					}
				},
			})
		})
	}
}

// older gives the store the format number 1, which earlier releases wrote for the same records.
func (h killedHost) older(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(h.dir, "leases/*.db"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	db, err := bolt.Open(files[0], 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("store")).Put([]byte("format"), []byte("1")) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}
