package cnitool

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestDoctorPortOffBridge causes a fault of a container's bridge port or of the bridge, for example
// a port that is on no bridge. The container then sends packets, so that its neighbour entries
// become wrong too. The test checks that the doctor names the port or the bridge, and that --fix
// restores it. Each case runs with the container's record of libcni and without it.
func TestDoctorPortOffBridge(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, spoil string
		want        string // part of the obstacle's text; PORT stands for the container's port
		repair      bool   // "bvctl repair" restores the port, if there is a record
	}{
		{"off its bridge", "ip link set PORT nomaster", "port of c1: PORT is on no bridge; it belongs on br0", true},
		{"on another bridge", "ip link add br7 type bridge; ip link set br7 up; ip link set PORT master br7", "port of c1: PORT is on bridge br7; it belongs on br0", true},
		{"down", "ip link set PORT down", "port of c1: PORT is down", true},
		{"bridge down", "ip link set br0 down", "bridge br0: the bridge is down", true},
		{"bridge renamed", "ip link set br0 down; ip link set br0 name br9; ip link set br9 up", "bridge br0: the bridge does not exist; it was renamed to br9", false},
		{"bridge deleted", "ip link del br0", "bridge br0: the bridge does not exist", true},
	} {
		for _, record := range []string{"with a record", "without a record"} {
			t.Run(tt.name+"/"+record, func(t *testing.T) {
				t.Parallel()
				n := newNode(t, single, "nft")
				c := n.containers(2)
				n.must("add", c...)
				port := portNameOf(c[0])
				spoil := func() {
					setuptest.Run(t, "sh", "-c", strings.ReplaceAll(tt.spoil, "PORT", port))
					for _, to := range []string{"10.88.0.1", "10.88.0.3"} {
						// While the port is on no bridge, the host answers ARP requests for
						// 10.88.0.1 with the port's MAC address. The container's neighbour entry
						// then has this wrong address.
						_ = c[0].Do(exec.Command("ping", "-n", "-c", "1", "-w", "1", to).Run)
					}
				}
				want := strings.ReplaceAll(tt.want, "PORT", port)
				if record == "without a record" {
					if err := os.RemoveAll("/var/lib/cni/results"); err != nil {
						t.Fatal(err)
					}
				}
				spoil()
				for _, args := range [][]string{{"10.88.0.2"}, {"10.88.0.2", "10.88.0.3"}} {
					if d, status := doctor(t, args...); status != 1 || !strings.HasPrefix(d.obstacle(), want) {
						t.Errorf("doctor %v: status %d, obstacle %q, want %q\n%+v", args, status, d.obstacle(), want, d)
					}
				}
				if record == "with a record" && tt.repair {
					out, status := bvctl(t, "repair")
					if status != 0 || !answers(t, c[0], "10.88.0.3") || !answers(t, c[0], "10.88.0.1") {
						t.Errorf("repair: status %d: %s", status, out)
					}
					spoil()
				}
				if d, status := doctor(t, "--fix"); status != 0 {
					t.Errorf("after --fix: status %d, obstacle %q\n%+v", status, d.obstacle(), d)
				}
				if !answers(t, c[0], "10.88.0.3") || !answers(t, c[0], "10.88.0.1") {
					t.Error("after --fix: no answer")
				}
			})
		}
	}
}

// answers reports whether Ping succeeds in one of several attempts. A single attempt may fail: ping
// stops at the first error, and an ARP request from before the repair may still time out.
func answers(t *testing.T, c *setup.Namespace, to string) bool {
	for range 2 {
		if setuptest.Ping(t, c, to) {
			return true
		}
	}
	return false
}

// TestDoctorPortUnknownBridge checks the doctor's report about a port that is on no bridge, if
// nothing shows which bridge the port was on.
func TestDoctorPortUnknownBridge(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := n.containers(1)[0]
	n.must("add", c)
	port := portNameOf(c)
	setuptest.Run(t, "sh", "-c", "rm -r /var/lib/cni/results; rm /run/net.d/*; ip link set "+port+" nomaster")
	const want = "is on no bridge, and neither a record nor a configuration of its network names the bridge where it belongs"
	if d, status := doctor(t, c.Path); status != 1 || !strings.Contains(d.obstacle(), port+" "+want) {
		t.Errorf("status %d, obstacle %q, want %q\n%+v", status, d.obstacle(), want, d)
	}
}

// TestDoctorPortKeepsBridge changes the key bridge in the configuration of a network with attached
// containers. It checks that --fix leaves the containers on their bridge.
func TestDoctorPortKeepsBridge(t *testing.T) {
	t.Parallel()
	for _, record := range []string{"with a record", "without a record"} {
		t.Run(record, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, single, "nft")
			c := n.containers(2)
			n.must("add", c...)
			n.configure(single.with(object{"bridge": "br1"}))
			if record == "without a record" {
				if err := os.RemoveAll("/var/lib/cni/results"); err != nil {
					t.Fatal(err)
				}
			}
			if out, _ := bvctl(t, "doctor", "--fix", "-v"); true {
				t.Log(out)
			}
			if d, status := doctor(t, "--fix"); status != 0 {
				t.Errorf("status %d, obstacle %q", status, d.obstacle())
			}
			if out := setuptest.Run(t, "ip", "-o", "link", "show", "master", "br0"); strings.Count(out, "\n") != 2 {
				t.Errorf("ports of br0:\n%s", out)
			}
		})
	}
}
