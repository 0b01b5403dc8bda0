package dropin

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/internal/ptrace"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestInstallKilled kills hack/dropin.sh between its steps. It checks that the same call then
// succeeds, and that uninstall restores each reference plugin and leaves no other file.
func TestInstallKilled(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"install", "uninstall"} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			dropin := func(verb string) ptrace.Traced {
				return func(before func(ptrace.Call) bool) { runDropin(t, dir, verb, before) }
			}
			var want map[string]string
			ptrace.KillEach(t, 8, ptrace.Killing{
				Prepare: func() {
					must(t, os.RemoveAll(dir))
					must(t, os.Mkdir(dir, 0o755))
					for _, name := range []string{"bridge", "host-local", "portmap", "firewall"} { // loopback is missing
						printing(t, filepath.Join(dir, name), name+" plugin v1.10.0")
					}
					printing(t, filepath.Join(dir, "bridgeveth"), "bridgeveth plugin v1.0.0+bridgeveth.1")
					want = printed(t, dir)
					if verb == "uninstall" {
						dropin("install")(nil)
					}
				},
				Run: dropin(verb), Cure: dropin(verb),
				Check: func(when string) {
					if verb == "install" {
						for _, name := range names {
							if got := printed(t, dir)[name]; !strings.Contains(got, "+bridgeveth.") {
								t.Errorf("%s: after install, %s prints %q", when, name, got)
							}
						}
						dropin("uninstall")(nil)
					}
					if diff := cmp.Diff(want, printed(t, dir)); diff != "" {
						t.Errorf("%s: after uninstall (-want +got):\n%s", when, diff)
					}
				},
			})
		})
	}
}

// TestInstallUnknown checks that install keeps a reference plugin if it cannot find out whether the
// file in its place is ours, for example because the kernel has killed the file's process.
func TestInstallUnknown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	printing(t, filepath.Join(dir, "bridge"), "bridge plugin v1.10.0")
	printing(t, filepath.Join(dir, "bridgeveth"), "bridgeveth plugin v1.0.0+bridgeveth.1")
	runDropin(t, dir, "install", nil)
	kept := printed(t, filepath.Join(dir, "reference"))["bridge"]
	must(t, os.Remove(filepath.Join(dir, "bridge")))
	setuptest.WriteProgram(t, filepath.Join(dir, "bridge"), "#!/bin/sh\nkill -KILL $$\n")
	out, err := exec.Command("../../hack/dropin.sh", "install", dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), filepath.Join(dir, "bridge")+": cannot run the file") {
		t.Errorf("got %v: %s", err, out)
	}
	if got := printed(t, filepath.Join(dir, "reference"))["bridge"]; got != kept {
		t.Errorf("the kept plugin is now %q", got)
	}
}

// printing writes a program that prints a line about itself, as plugins do without CNI_COMMAND.
func printing(t testing.TB, path, line string) {
	t.Helper()
	setuptest.WriteProgram(t, path, "#!/bin/sh\necho 'CNI "+line+"' >&2\n")
}

// printed returns the lines that the files in dir print, by name. Subfolders print "folder".
func printed(t testing.TB, dir string) map[string]string {
	t.Helper()
	files, err := os.ReadDir(dir)
	must(t, err)
	all := map[string]string{}
	for _, f := range files {
		all[f.Name()] = "folder"
		if !f.IsDir() {
			b, err := os.ReadFile(filepath.Join(dir, f.Name()))
			must(t, err)
			all[f.Name()] = string(b)
		}
	}
	return all
}

// runDropin runs hack/dropin.sh, and waits until the programs that it has started have ended too. If
// before is not nil, the shell is traced, and its end is no error.
func runDropin(t testing.TB, dir, verb string, before func(ptrace.Call) bool) {
	t.Helper()
	argv := []string{"/bin/sh", "../../hack/dropin.sh", verb, dir}
	if before == nil {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("dropin.sh %s: %v: %s", verb, err, out)
		}
		return
	}
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	_, err = ptrace.Run(argv, os.Environ(), []*os.File{nil, w, w}, before)
	w.Close()
	must(t, err)
	_, err = io.Copy(io.Discard, r) // ends when no process has the other end open
	must(t, err)
}
