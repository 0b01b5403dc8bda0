package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// run is a run of operations and faults on one host.
type run struct {
	t          *testing.T
	seed       uint64
	operations int           // the number of operations, at least those made so far
	leastTime  time.Duration // the run makes further operations until then
	networks   []*network
	workers    []*worker
	checker    *worker // calls plugins while the workers pause
	firewalls  *firewalls
	hostile    *hostile      // nil in a short run
	checks     int           // number of checks so far
	kept       map[step]bool // the steps of a repeated run; nil for all steps
	before     []string      // state of the host before the run
	began      time.Time

	mu       sync.Mutex
	entries  []entry
	problems []problem
	counts   map[string]map[string]int
}

// mostWorkers is the number of workers of a run. A short run has fewer workers.
const mostWorkers = 64

// newRun prepares the host and the workers. The leases are in a file system of their own, so that a worker can fill it.
func newRun(t *testing.T, seed, operations, minutes uint64) *run {
	setuptest.Run(t, "sh", "-ec", "mkdir "+leases+"; mount -t tmpfs -o size=4m,mode=700 tmpfs "+leases)
	networks, err := newNetworks()
	if err != nil {
		t.Fatal(err)
	}
	r := &run{
		t: t, seed: seed, operations: int(operations), leastTime: time.Duration(minutes) * time.Minute,
		networks: networks, counts: map[string]map[string]int{},
	}
	number := max(1, min(mostWorkers, r.operations/25))
	for i := range number {
		r.workers = append(r.workers, r.newWorker(i+1))
	}
	r.checker = r.newWorker(0)
	r.checker.disturbed.calm = true
	if err := r.keep(os.Getenv(stepsVar)); err != nil {
		t.Fatal(err)
	}
	r.firewalls = r.newFirewalls(number < mostWorkers)
	r.firewalls.settle(t)
	r.prepare()
	r.before = r.dump()
	r.firewalls.start(t)
	if number == mostWorkers && r.kept == nil {
		r.hostile = r.newHostile()
	}
	r.began = time.Now()
	return r
}

// newWorker returns a worker, which calls the plugins by a libcni of its own.
func (r *run) newWorker(number int) *worker {
	w := &worker{run: r, number: number, disturbed: &disturbed{}}
	_, w.random = step{Worker: number}.choose(r.seed)
	w.cni = libcni.NewCNIConfigWithCacheDir([]string{programs}, "/var/lib/cni", w.disturbed)
	return w
}

// prepare attaches one container to each network and detaches it, because the first ADD of a host
// creates files that remain, such as the store and the locks.
func (r *run) prepare() {
	for _, n := range r.networks {
		c := &container{name: "first", network: n, ns: setuptest.Container(r.t, "first-"+n.name), port: firstPort}
		if _, err := r.checker.cni.AddNetworkList(context.Background(), n.list, c.runtimeConf()); err != nil {
			r.t.Fatal(err)
		}
		if err := r.checker.cni.DelNetworkList(context.Background(), n.list, c.runtimeConf()); err != nil {
			r.t.Fatal(err)
		}
	}
}

// rounds makes the operations, and checks the host after each round. It returns false as soon as a
// round shows a problem.
func (r *run) rounds() bool {
	for done := 0; done < r.operations || time.Since(r.began) < r.leastTime; r.operations = max(r.operations, done) {
		done += perRound * len(r.workers)
		if r.skip() {
			continue
		}
		var all sync.WaitGroup
		for _, w := range r.workers {
			all.Go(w.round)
		}
		all.Wait()
		r.calm(true)
		r.check()
		r.calm(false)
		if !r.passed() {
			return false
		}
	}
	return true
}

// calm makes all workers disturb no plugin process, or disturb some again.
func (r *run) calm(calm bool) {
	for _, w := range r.workers {
		w.disturbed.calm = calm
	}
}

// end detaches all containers, calls GC without valid attachments, and compares the host with its
// state before the run. It returns false if something is left.
func (r *run) end() bool {
	r.calm(true)
	for _, w := range r.workers {
		for _, c := range slices.Clone(w.containers) {
			w.detach(c)
		}
	}
	for _, n := range r.networks {
		r.checker.collect(n)
	}
	for _, n := range r.networks {
		left, err := harness.Leases(n.name)
		if err != nil || len(left) > 0 {
			var names []string
			for _, l := range left {
				names = append(names, l.Container)
			}
			r.problem(fmt.Sprintf("leases of network %s are left: %v, %v", n.name, left, err), names...)
		}
	}
	if r.hostile != nil {
		r.hostile.end(r)
	}
	r.firewalls.end(r.t)
	// The child process of a DEL may run for some milliseconds after the DEL.
	if !harness.Until(func() bool { return len(processes(r.t)) == 0 }) {
		r.problem(fmt.Sprintf("processes are left: %v", processes(r.t)))
	}
	r.firewalls.settle(r.t)
	if diff := cmp.Diff(r.before, r.dump()); diff != "" {
		r.problem("the host is not as before the run (-before +after):\n" + diff)
	}
	return r.passed()
}

// dump returns the state of the host as sorted lines. Without the sort, a flush would change the
// order of the tables. The state does not include the files of firewalld and dockerd.
func (r *run) dump() []string {
	text := setuptest.Dump(r.t, "/run", "/var/lib") + "# tc qdisc\n" + setuptest.Run(r.t, "tc", "qdisc")
	text = regexp.MustCompile(`(?m)^/run/(dbus|docker|etc|firewalld|work).*\n`).ReplaceAllString(text, "")
	return slices.Sorted(strings.Lines(text))
}

// processes returns the names of the processes in the host's network namespace, except those of the
// test.
func processes(t *testing.T) (names []string) {
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	// A thread of the parent process is in this namespace, too (see setuptest.InHost).
	own := []string{fmt.Sprintf("/proc/%d", os.Getpid()), fmt.Sprintf("/proc/%d", os.Getppid())}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		ns, err := os.Readlink(p + "/ns/net") // fails if the process has ended
		if err == nil && ns == ours && !slices.Contains(own, p) {
			name, _ := os.ReadFile(p + "/comm")
			names = append(names, p+" "+strings.TrimSpace(string(name)))
		}
	}
	return names
}

// bvctl runs bvctl and returns its output. Exit status 1 means that bvctl found problems.
func bvctl(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(programs, "bvctl"), args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 1 {
		err = nil
	}
	return string(out), err
}
