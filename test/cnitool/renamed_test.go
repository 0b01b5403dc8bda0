package cnitool

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestBridgeRenamed renames the bridge of a running container. It checks that ADD and repair make
// no second bridge, which would have the same MAC address and gateway address. Both must print the
// command that gives the bridge its old name again.
func TestBridgeRenamed(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := n.containers(2)
	n.must("add", c[0])
	setuptest.Run(t, "sh", "-c", "ip link set br0 down; ip link set br0 name br9; ip link set br9 up")
	const back = "ip link set br9 down; ip link set br9 name br0; ip link set br0 up"
	err := n.cnitool("add", c[1])
	if err == nil || !strings.Contains(err.Error(), "bridge br0: it was renamed to br9; rename it back: "+back) {
		t.Errorf("add: %v", err)
	}
	out, err := exec.Command(filepath.Join(programs, "bvctl"), "repair").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "bridge br0: it was renamed to br9") {
		t.Errorf("repair: %v: %s", err, out)
	}
	if links := setuptest.Run(t, "ip", "-o", "link"); strings.Contains(links, "br0:") {
		t.Errorf("a second bridge:\n%s", links)
	}
	setuptest.Run(t, "sh", "-c", back)
	n.must("add", c[1])
	if !setuptest.Ping(t, c[1], "10.88.0.2") {
		t.Error("no answer after the bridge was renamed back")
	}
}

// TestAlternativeName checks that ADD and CHECK refuse a bridge whose name is only an alternative
// name. The kernel finds a link by such a name, but rules match only the name itself.
func TestAlternativeName(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := n.containers(2)
	n.must("add", c[0])
	setuptest.Run(t, "sh", "-c", "ip link set br0 down; ip link set br0 name br9; ip link set br9 up; ip link property add dev br9 altname br0")
	const want = `bridge br0: br0 is only an alternative name of br9; set "bridge" to "br9", or remove the alternative name: ip link property del dev br9 altname br0`
	for verb, c := range map[string]*setup.Namespace{"add": c[1], "check": c[0]} {
		if err := n.cnitool(verb, c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	out, err := exec.Command(filepath.Join(programs, "bvctl"), "repair").CombinedOutput()
	if err == nil || !strings.Contains(string(out), want) {
		t.Errorf("repair: %v: %s", err, out)
	}
	setuptest.Run(t, "sh", "-c", "ip link property del dev br9 altname br0; ip link set br9 down; ip link set br9 name br0; ip link set br0 up")
	n.must("add", c[1])
	if !setuptest.Ping(t, c[1], "10.88.0.2") {
		t.Error("no answer after the bridge has its name again")
	}
	n.must("del", c...)
}
