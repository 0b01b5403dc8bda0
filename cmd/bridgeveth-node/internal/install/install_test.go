package install

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// build builds the plugin file with the given version and returns its path.
func build(t *testing.T, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bridgeveth")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w -X github.com/bridgeveth/bridgeveth/pkg/plugin.Version="+version, "-o", path, "./cmd/bridgeveth")
	cmd.Dir = "../../../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func install(t *testing.T, source, folder string, want ...string) {
	t.Helper()
	if got, err := Plugins(source, folder); !slices.Equal(got, want) || err != nil {
		t.Errorf("installed %v, %v; want %v", got, err, want)
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != len(names) {
		t.Errorf("files: %v, %v", entries, err)
	}
	first, err := os.Stat(filepath.Join(folder, "bridgeveth"))
	if err != nil {
		t.Fatal(err)
	}
	if second, err := os.Stat(filepath.Join(folder, "ipam-simple")); err != nil || !os.SameFile(first, second) {
		t.Errorf("bridgeveth and ipam-simple are two files: %v", err)
	}
}

func TestPlugins(t *testing.T) {
	older, newer := build(t, "v1"), build(t, "v2")
	t.Run("upgrade and downgrade", func(t *testing.T) {
		folder := filepath.Join(t.TempDir(), "bin")
		install(t, older, folder, names...)
		install(t, older, folder)
		install(t, newer, folder, names...)
		install(t, older, folder, names...)
	})
	t.Run("loopback of another project", func(t *testing.T) {
		folder := t.TempDir()
		path := filepath.Join(folder, "loopback")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		install(t, older, folder, "bridgeveth", "ipam-simple")
		if text, err := os.ReadFile(path); string(text) != "#!/bin/sh\n" || err != nil {
			t.Errorf("loopback was replaced: %v", err)
		}
	})
	t.Run("bvctl beside the plugin file", func(t *testing.T) {
		source, folder := t.TempDir(), t.TempDir()
		if err := os.Link(older, filepath.Join(source, "bridgeveth")); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"#!/bin/sh\n", "#!/bin/sh\nexit 1\n"} {
			if err := os.WriteFile(filepath.Join(source, "bvctl"), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
			if got, err := Plugins(filepath.Join(source, "bridgeveth"), folder); err != nil || len(got) == 0 || got[0] != "bvctl" {
				t.Errorf("installed %v, %v", got, err)
			}
			if got, err := os.ReadFile(filepath.Join(folder, "bvctl")); string(got) != text || err != nil {
				t.Errorf("bvctl is %q, %v", got, err)
			}
		}
		if got, err := Plugins(filepath.Join(source, "bridgeveth"), folder); len(got) > 0 || err != nil {
			t.Errorf("the second time: installed %v, %v", got, err)
		}
	})
	t.Run("after a kill", func(t *testing.T) {
		folder := t.TempDir()
		install(t, older, folder, names...)
		// The test makes the state after a kill between the first and the second rename: the name
		// bridgeveth leads to a new file, the other names lead to the old file, and a temporary
		// link is left.
		if err := os.WriteFile(filepath.Join(folder, "half"), []byte("half"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(folder, "half"), filepath.Join(folder, "bridgeveth")); err != nil {
			t.Fatal(err)
		}
		if err := os.Link(filepath.Join(folder, "ipam-simple"), filepath.Join(folder, ".bridgeveth.new")); err != nil {
			t.Fatal(err)
		}
		install(t, newer, folder, names...)
	})
}

// TestUpgradeUnderWay checks that the plugin can be started at any time while two versions are
// installed alternately. Starting the plugin would fail with "text file busy" if its file were
// overwritten in place. It would also fail with an incomplete file.
func TestUpgradeUnderWay(t *testing.T) {
	versions := []string{build(t, "v1"), build(t, "v2")}
	folder := t.TempDir()
	install(t, versions[0], folder, names...)
	done := make(chan struct{})
	var runs sync.WaitGroup
	for _, name := range names {
		runs.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				cmd := exec.Command(filepath.Join(folder, name))
				cmd.Env = []string{"CNI_COMMAND=VERSION"}
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", name, err, out)
					return
				}
			}
		})
	}
	for i := range 20 {
		install(t, versions[(i+1)%2], folder, names...)
	}
	close(done)
	runs.Wait()
}
