// Package containerd runs pods by the real containerd, through its CRI socket, in a host where
// everything is where its users have it: the plugins in /opt/cni/bin, and the configuration
// that is shipped in /etc/cni/net.d.
package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// programs is the folder with what users install.
var programs string

func TestMain(m *testing.M) {
	harness.Main(m, &programs, "bridgeveth", "bvctl")
}

// prepare puts everything where users have it, with the configuration of containerd. What is
// written to /etc or /opt stays in the test's host.
func prepare(t *testing.T, config string) {
	t.Helper()
	for _, dir := range []string{"/etc", "/opt"} {
		upper, work := "/run/upper"+dir, "/run/work"+dir
		setuptest.Run(t, "mkdir", "-p", upper, work)
		if err := unix.Mount("overlay", dir, "overlay", 0, "lowerdir="+dir+",upperdir="+upper+",workdir="+work); err != nil {
			t.Fatalf("mount %s: %v", dir, err)
		}
	}
	setuptest.Run(t, "mkdir", "-p", "/opt/cni/bin", "/etc/cni/net.d", "/etc/containerd")
	setuptest.Run(t, "cp", "-a", programs+"/.", "/opt/cni/bin")
	setuptest.Run(t, "ln", "/opt/cni/bin/bridgeveth", "/opt/cni/bin/loopback") // which containerd runs for every pod
	setuptest.Run(t, "cp", "../../conf/10-containerd.conflist", conflist)
	if err := os.WriteFile("/etc/containerd/config.toml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// cgroup is where the test's pods go, below the root of each hierarchy of the machine's.
func cgroup(t testing.TB) string {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &s); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("bridgeveth-test-", s.Ino)
}

// cgroups lists those that there are below the test's, and that itself, the innermost first.
func cgroups(t testing.TB) (paths []string) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		for _, top := range files(t, pattern+cgroup(t)) {
			err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					paths = append(paths, path)
				}
				return err
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may go meanwhile
				t.Fatal(err)
			}
		}
	}
	slices.Reverse(paths)
	return paths
}

// removeCgroups removes the test's cgroup, which containerd leaves to whoever has named it,
// and whatever a test that failed has left below.
func removeCgroups(t testing.TB) {
	t.Helper()
	var err error
	if !harness.Until(func() bool { // a process that was killed may take its time
		err = nil
		for _, path := range cgroups(t) {
			err = errors.Join(err, os.Remove(path))
		}
		return err == nil
	}) {
		t.Errorf("a cgroup stays: %v", err)
	}
}
