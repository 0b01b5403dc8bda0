package dropin

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestInstall checks that hack/dropin.sh can install our plugins, also a second time, and that its
// uninstall restores the reference plugins.
func TestInstall(t *testing.T) {
	dir := t.TempDir()
	copyFile := func(from, to string) {
		b, err := os.ReadFile(from)
		must(t, err)
		setuptest.WriteProgram(t, filepath.Join(dir, to), string(b))
	}
	is := func() (list []string) { // returns which program has each name
		for _, name := range append([]string{"tuning"}, names...) {
			out, err := exec.Command("env", "-i", filepath.Join(dir, name)).CombinedOutput()
			who := map[bool]string{true: "ours", false: "theirs"}[strings.Contains(string(out), "+bridgeveth.")]
			if err != nil {
				who = "missing"
			}
			list = append(list, name+" is "+who)
		}
		return list
	}
	for _, name := range []string{"tuning", "host-local", "portmap", "firewall", "loopback"} {
		copyFile(filepath.Join(reference, name), name)
	}
	must(t, os.Symlink(filepath.Join(reference, "bridge"), filepath.Join(dir, "bridge")))
	before := is()
	for i := range 2 {
		copyFile(filepath.Join(reference, "bridgeveth"), "bridgeveth.new") // a rename replaces the file, as in make install
		must(t, os.Rename(filepath.Join(dir, "bridgeveth.new"), filepath.Join(dir, "bridgeveth")))
		said := setuptest.Run(t, "../../hack/dropin.sh", "install", dir)
		want := []string{"tuning is theirs", "bridge is ours", "host-local is ours", "portmap is ours", "firewall is ours", "loopback is ours"}
		if diff := cmp.Diff(want, is()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if kept, err := os.ReadDir(filepath.Join(dir, "reference")); err != nil || len(kept) != 5 {
			t.Errorf("kept programs: %v, %v", kept, err)
		}
		if named := strings.Count(said, "which is now reference/"); named != []int{5, 0}[i] {
			t.Errorf("the %d. time it says %q", i+1, said)
		}
		info, err := os.Stat(filepath.Join(dir, "bridge"))
		must(t, err)
		if self, err := os.Stat(filepath.Join(dir, "bridgeveth")); err != nil || !os.SameFile(info, self) {
			t.Error("bridge is another file")
		}
	}
	setuptest.Run(t, "../../hack/dropin.sh", "uninstall", dir)
	if diff := cmp.Diff(before, is()); diff != "" {
		t.Errorf("after uninstall (-before +after):\n%s", diff)
	}
	must(t, os.Remove(filepath.Join(dir, "bridge")))
	setuptest.Run(t, "../../hack/dropin.sh", "install", dir)
	setuptest.Run(t, "../../hack/dropin.sh", "uninstall", dir)
	if !slices.Contains(is(), "bridge is missing") {
		t.Errorf("bridge did not exist before, and exists now: %v", is())
	}
}

// TestInstallShared checks that hack/dropin.sh runs and copies no program in a folder where all users
// can write.
func TestInstallShared(t *testing.T) {
	for _, shared := range []string{".", "reference"} {
		dir := t.TempDir()
		ran := filepath.Join(dir, "ran")
		setuptest.WriteProgram(t, filepath.Join(dir, "bridge"), "#!/bin/sh\ntouch "+ran+"\n")
		setuptest.WriteProgram(t, filepath.Join(dir, "bridgeveth"), "#!/bin/sh\n")
		must(t, os.Mkdir(filepath.Join(dir, "reference"), 0o755))
		must(t, os.Chmod(filepath.Join(dir, shared), 0o777))
		out, err := exec.Command("../../hack/dropin.sh", "install", dir).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "all users can write there") {
			t.Errorf("%s: %v: %s", shared, err, out)
		}
		if _, err := os.Stat(ran); err == nil {
			t.Errorf("%s: the program bridge was run", shared)
		}
	}
}
