package cnitool

import (
	"os"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestStoreDeleted deletes the store under two containers. Their addresses are not given out
// again, whether their links show them, libcni's record does, or both do; CHECK goes on
// succeeding, and DEL frees them.
func TestStoreDeleted(t *testing.T) {
	deleteLinks := func(t *testing.T) {
		t.Helper()
		for _, c := range []string{"c1", "c2"} {
			setuptest.Run(t, "ip", "-n", c, "link", "delete", "eth0")
		}
	}
	for _, tt := range []struct {
		name    string
		version string // of CNI
		hide    func(*testing.T)
	}{
		{"link and record", "1.1.0", func(*testing.T) {}},
		{"link", "1.1.0", func(t *testing.T) {
			t.Helper()
			if err := os.RemoveAll("/var/lib/cni/results"); err != nil {
				t.Fatal(err)
			}
		}},
		{"record", "1.1.0", deleteLinks}, {"record of CNI 0.4.0", "0.4.0", deleteLinks}, {"record of CNI 0.2.0", "0.2.0", deleteLinks},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, dual, "nft")
			setuptest.Run(t, "sed", "-i", "s/1.1.0/"+tt.version+"/", "/run/net.d/10-net.conflist")
			c := n.containers(3)
			before := setuptest.Dump(t)
			n.must("add", c[0], c[1])
			tt.hide(t)
			if err := os.RemoveAll("/run/ipam-simple"); err != nil {
				t.Fatal(err)
			}
			if tt.name == "link and record" {
				n.must("check", c[0], c[1])
			}
			n.must("add", c[2])
			for _, want := range []string{"10.88.0.4/24", "fd88::4/64"} {
				if got := setuptest.In(t, c[2], "ip", "address", "show", "eth0"); !strings.Contains(got, want) {
					t.Errorf("the third container has not %s:\n%s", want, got)
				}
			}
			if held := leases(t); len(held) != 6 {
				t.Errorf("leases: %v", held)
			}
			n.must("del", c...)
			noLeases(t)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}
