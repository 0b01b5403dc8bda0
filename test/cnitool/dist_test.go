package cnitool

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestUnits checks the unit files in dist/ by `systemd-analyze verify`, which also checks that the
// programs exist. The test therefore copies bvctl to the paths in the unit files.
func TestUnits(t *testing.T) {
	t.Parallel()
	setuptest.EnterHost(t)
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("LISTED SKIP: no systemd to verify the units")
	}
	setuptest.Run(t, "mount", "-t", "tmpfs", "none", "/usr/local/sbin")
	for _, name := range []string{"bvctl", "bridgeveth-pool"} {
		setuptest.Run(t, "cp", programs+"/bvctl", "/usr/local/sbin/"+name)
	}
	if out := setuptest.Run(t, "sh", "-c", "systemd-analyze verify ../../dist/*.service ../../dist/*.timer 2>&1"); strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze: %s", out)
	}
}
