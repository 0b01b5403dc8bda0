package crio

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// TestValidation checks which network configurations CRI-O loads. CRI-O skips a configuration if a
// plugin is missing or does not support the configuration's CNI version. It writes the reason only
// to its log.
func TestValidation(t *testing.T) {
	setuptest.InHost(t, func() {
		n := newNode(t)
		n.accepts("as shipped", "")
		for _, v := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
			n.configure(version(v))
			n.start(programs)
			n.accepts(v, "")
		}
		// 10-crio-bridge.conflist is the name of CRI-O's own configuration file. This name comes
		// before the name of our file in alphabetical order.
		if err := os.Rename(filepath.Join(n.conf, "10-crio.conflist"), filepath.Join(n.conf, "10-crio-bridge.conflist")); err != nil {
			t.Fatal(err)
		}
		n.configure(func(list, _, _ object) { list["name"] = "ours" })
		n.start(programs)
		n.accepts("the first of two", "")
		if err := os.Remove(filepath.Join(n.conf, "10-crio-bridge.conflist")); err != nil {
			t.Fatal(err)
		}

		n.configure(version("1.2.0"))
		n.start(programs)
		n.accepts("1.2.0", `plugin bridgeveth does not support config version \"1.2.0\"`)
		n.configure()
		n.start(t.TempDir())
		n.accepts("no plugin", `failed to find plugin \"bridgeveth\" in path`)
	})
}

// accepts checks whether ocicni uses the configured network. If the parameter reason is empty,
// ocicni must use it. Otherwise, ocicni must have no network, and must log this reason.
func (n *node) accepts(what, reason string) {
	n.t.Helper()
	err := n.Status()
	switch got := n.GetDefaultNetworkName(); {
	case reason == "" && (got != "crio" || err != nil):
		n.t.Errorf("%s: network %q: %v", what, got, err)
	case reason == "":
	case got != "" || err == nil || !strings.Contains(err.Error(), "no CNI configuration file in "+n.conf):
		n.t.Errorf("%s: network %q: %v", what, got, err)
	case !strings.Contains(n.said(), reason):
		n.t.Errorf("%s: %q is not in its log", what, reason)
	}
}

// TestInstalledLater installs the plugins while CRI-O runs. The network must not be ready before
// both bridgeveth and its IPAM plugin are installed. CRI-O itself does not look for the IPAM
// plugin, but STATUS of bridgeveth does.
func TestInstalledLater(t *testing.T) {
	setuptest.InHost(t, func() {
		n := newNode(t)
		dir := t.TempDir()
		n.start(dir)
		n.accepts("no plugin", `failed to find plugin \"bridgeveth\" in path`)
		install := func(name string) { // replaces the file by a rename, as make install does
			t.Helper()
			next := filepath.Join(dir, "."+name+".new")
			if err := os.Link(filepath.Join(programs, "bridgeveth"), next); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(next, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		install("bridgeveth")
		n.becomes(`there is no plugin "ipam-simple" in CNI_PATH`)
		install("ipam-simple")
		n.becomes("")
		if err := os.Remove(filepath.Join(n.conf, "10-crio.conflist")); err != nil {
			t.Fatal(err)
		}
		n.becomes("no CNI configuration file in " + n.conf)
	})
}

// becomes waits until ocicni's Status succeeds or, if the parameter reason is not empty, until
// Status fails for this reason.
func (n *node) becomes(reason string) {
	n.t.Helper()
	var err error
	if !harness.Until(func() bool {
		err = n.Status()
		return err == nil && reason == "" || err != nil && reason != "" && strings.Contains(err.Error(), reason)
	}) {
		n.t.Errorf("status is %v, want %q", err, reason)
	}
}
