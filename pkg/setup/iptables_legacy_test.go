package setup_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestMissingExtension checks that the error is one line if iptables-legacy lacks its extension
// "conntrack", as in an image that contains only the program.
func TestMissingExtension(t *testing.T) {
	dir := t.TempDir()
	extensions, err := filepath.Glob("/usr/lib/*/xtables/*.so")
	for _, file := range extensions {
		if filepath.Base(file) != "libxt_conntrack.so" {
			err = errors.Join(err, os.Symlink(file, filepath.Join(dir, filepath.Base(file))))
		}
	}
	if err != nil || len(extensions) == 0 {
		t.Fatalf("%v: %d extensions in /usr/lib/*/xtables", err, len(extensions))
	}
	t.Setenv("XTABLES_LIBDIR", dir)
	h := setuptest.EnterHost(t)
	setuptest.DropForward(t, "iptables-legacy")
	setuptest.Run(t, "iptables-legacy", "-N", "DOCKER-ISOLATION-STAGE-2") // the rules for this chain match conntrack
	err = h.EnsureForward("br0", unix.AF_INET)
	if err == nil {
		t.Fatal("no error")
	}
	const want = "Couldn't load match `conntrack':No such file or directory"
	if text := err.Error(); !strings.HasSuffix(text, want) || strings.Contains(text, "\n") {
		t.Errorf("error %q, want one line that ends in %q", text, want)
	}
}
