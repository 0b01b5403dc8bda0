package containerd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// state describes everything that a removed pod could leave on the host.
type state struct {
	Network, Mounts, Netns, Processes, Cgroups, Leases, Results []string
}

// look returns the state of the host.
func (n *node) look() state {
	n.Helper()
	return state{
		Network:   strings.Split(setuptest.Dump(n), "\n"),
		Mounts:    mounts(n),
		Netns:     files(n, "/run/netns/*"),
		Processes: processes(n),
		Cgroups:   slices.DeleteFunc(cgroups(n), func(path string) bool { return filepath.Base(path) == n.cgroup }),
		Leases:    leases(n),
		Results:   files(n, "/var/lib/cni/results/*"),
	}
}

// same waits until the host's state is equal to the state in the parameter before, because a shim
// process of containerd takes some time to end. If the states stay different, the test fails with
// the given complaint.
func (n *node) same(before state, complaint string) {
	n.Helper()
	var diff string
	if !harness.Until(func() bool { diff = cmp.Diff(before, n.look(), cmpopts.EquateEmpty()); return diff == "" }) {
		n.Errorf("%s (-before +after):\n%s", complaint, diff)
	}
}

// nothingLeft removes pods. It then fails the test unless the host's state is as it was before the
// first pod.
func (n *node) nothingLeft(pods ...*pod) {
	n.Helper()
	for _, p := range pods {
		if err := n.remove(p); err != nil {
			n.Error(err)
		}
	}
	n.same(n.before, "pods left traces")
}

// files returns the paths of all files that match a pattern.
func files(t testing.TB, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// mounts returns the mount points of the host.
func mounts(t testing.TB) (points []string) {
	t.Helper()
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(info)) {
		points = append(points, strings.Fields(line)[4])
	}
	slices.Sort(points)
	return points
}

// processes returns the names of the running programs, without zombies. The test's process is the
// first process of a PID namespace, so it becomes the parent of orphaned processes. It does not
// wait for them, so they stay zombies after their end.
func processes(t testing.TB) (names []string) {
	t.Helper()
	for _, path := range files(t, "/proc/[0-9]*/stat") {
		stat, err := os.ReadFile(path) // PID (NAME) STATE ...
		if err != nil {
			continue // the process has ended
		}
		name, rest, _ := strings.Cut(string(stat[strings.IndexByte(string(stat), '(')+1:]), ") ")
		if rest[0] != 'Z' {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// leases returns the leases of the network. Each entry has the address and the container's ID.
func leases(t testing.TB) (held []string) {
	t.Helper()
	all, err := harness.Leases("containerd")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		held = append(held, fmt.Sprint(l.Address, " ", l.Container))
	}
	return held
}
