// Package containerd tests pods of containerd. The tests send requests to containerd's CRI socket,
// as the kubelet does. The plugins are in /opt/cni/bin, and a configuration of conf/ is in
// /etc/cni/net.d.
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

// programs is the folder with the plugins and bvctl.
var programs string

func TestMain(m *testing.M) {
	harness.Main(m, &programs, "bridgeveth", "bvctl")
}

// prepare installs the plugins and writes containerd's configuration. Only the test's host sees
// these files in /etc and /opt.
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
	setuptest.Run(t, "ln", "/opt/cni/bin/bridgeveth", "/opt/cni/bin/loopback") // containerd runs loopback for every pod
	setuptest.Run(t, "cp", "../../conf/10-containerd.conflist", conflist)
	if err := os.WriteFile("/etc/containerd/config.toml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// cgroup returns the name of the test's cgroup, which is the same in each cgroup hierarchy.
func cgroup(t testing.TB) string {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &s); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint("bridgeveth-test-", s.Ino)
}

// cgroups returns the paths of the test's cgroups. A cgroup comes after all cgroups that are inside
// of it.
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
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // the cgroup may end in the meantime
				t.Fatal(err)
			}
		}
	}
	slices.Reverse(paths)
	return paths
}

// removeCgroups removes the test's cgroup, which containerd does not remove. It also removes the
// cgroups inside of it, which a failed test may have left.
func removeCgroups(t testing.TB) {
	t.Helper()
	var err error
	if !harness.Until(func() bool { // a killed process takes some time to end
		err = nil
		for _, path := range cgroups(t) {
			err = errors.Join(err, os.Remove(path))
		}
		return err == nil
	}) {
		t.Errorf("a cgroup stays: %v", err)
	}
}
