package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
)

// withBvctl adds bvctl to a folder of programs.
func withBvctl(t *testing.T, bin string) string {
	t.Helper()
	if out, err := exec.Command("go", "build", "-C", "../..", "-o", filepath.Join(bin, "bvctl"), "./cmd/bvctl").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

// bvctl runs "bvctl pool" on the host, and returns the output, the errors and the exit status.
func (m *machine) bvctl(args ...string) (stdout, stderr string, status int) {
	m.t.Helper()
	c := m.command("bvctl", append([]string{"--conf-dir", m.conf, "pool"}, args...)...)
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil && c.ProcessState == nil {
		m.t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// TestBvctlPool lists the hosts of a pool by bvctl, which runs bridgeveth-pool.
func TestBvctlPool(t *testing.T) {
	bin := withBvctl(t, programs(t))
	a := newMachine(t, bin, "a")
	if out, errs, status := a.bvctl(); status != 2 || out != "" || !strings.Contains(errs, "bvctl: bridgeveth-pool: network net: etcd unreachable since the boot: ") {
		t.Errorf("without etcd: %q, %q, %d", out, errs, status)
	}
	etcdtest.StartCluster(t, etcdtest.Options{})
	if _, err := a.call("ADD", "c1"); err != nil {
		t.Fatal(err)
	}
	out, errs, status := a.bvctl()
	if lines := strings.Split(out, "\n"); status != 0 || errs != "" || len(lines) != 5 || !strings.HasPrefix(lines[0], "NETWORK  HOST") || !strings.Contains(lines[1], "(this host)") || !strings.Contains(lines[3], " leased") {
		t.Errorf("%q, %q, %d", out, errs, status)
	}
	out, errs, status = a.bvctl("-o", "json")
	if status != 0 || errs != "" || !strings.Contains(out, `"self": true`) || !strings.Contains(out, `"leased": 1`) {
		t.Errorf("%q, %q, %d", out, errs, status)
	}
}
