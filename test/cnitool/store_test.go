package cnitool

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestStoreDeleted deletes the store of leases while two containers run. ADD must not lease their
// addresses again, because it finds the addresses on the containers' links, in libcni's records, or
// in both. CHECK must succeed, and DEL must free the addresses.
func TestStoreDeleted(t *testing.T) {
	t.Parallel()
	deleteLinks := func(t *testing.T) {
		t.Helper()
		for _, c := range []string{"c1", "c2"} {
			setuptest.Run(t, "ip", "-n", c, "link", "delete", "eth0")
		}
	}
	for _, tt := range []struct {
		name    string
		version string // CNI version of the record
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
		{"record of libcni 1.1, without netns", "1.0.0", func(t *testing.T) {
			t.Helper()
			deleteLinks(t)
			setuptest.Run(t, "sh", "-c", `sed -i 's/"netns":"[^"]*"/"none":""/' /var/lib/cni/results/* && grep -q '"none"' /var/lib/cni/results/*`)
		}},
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

// TestStoreDeletedKilledDEL deletes the store while a container has the address of an earlier
// container. The record and the namespace of the earlier container still exist, as after a DEL that
// was killed when it had freed the address. The address must stay leased to the living container.
func TestStoreDeletedKilledDEL(t *testing.T) {
	t.Parallel()
	n := newNode(t, single.with(object{"ipam": object{"type": "ipam-simple", "subnet": "10.88.0.0/24", "rangeStart": "10.88.0.2", "rangeEnd": "10.88.0.2"}}), "nft")
	c := n.containers(2)
	n.must("add", c[0])
	setuptest.Run(t, "cp", "-r", "/var/lib/cni/results", "/run/results")
	n.must("del", c[0])
	n.must("add", c[1])
	setuptest.Run(t, "sh", "-ec", "cp -n /run/results/* /var/lib/cni/results; rm -r /run/ipam-simple")
	n.must("check", c[1])
}

// TestStoreDeletedShared deletes the store while a container runs on one of two networks with the
// same range. ADD on the other network must not lease the address of this container.
func TestStoreDeletedShared(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	setuptest.Run(t, "sh", "-ec", `sed 's/"name":"net"/"name":"twin"/' /run/net.d/10-net.conflist >/run/net.d/20-twin.conflist; grep -q twin /run/net.d/20-twin.conflist`)
	c := n.containers(2)
	n.must("add", c[0])
	refused := func(when string) {
		if err := n.cnitoolOn("twin", "add", c[1]); err == nil || !strings.Contains(err.Error(), "is in use by another network") {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("before the deletion")
	if err := os.RemoveAll("/run/ipam-simple"); err != nil {
		t.Fatal(err)
	}
	refused("after the deletion")
	n.must("check", c[0])
	n.must("del", c[0])
	noLeases(t)
	if err := n.cnitoolOn("twin", "add", c[1]); err != nil {
		t.Error(err)
	}
}

// TestFullDisk fills the file system of the store. It checks that DEL and GC succeed, because they
// need no more space. They must free every lease if the network has no sticky addresses.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, sticky := range []bool{false, true} {
		t.Run(fmt.Sprintf("sticky=%v", sticky), func(t *testing.T) {
			t.Parallel()
			conf := dual
			if sticky {
				ipam := object{"sticky": "1h"}
				conf = dual.with(object{"ipam": dual["ipam"].(object).with(ipam)})
			}
			newNode(t, conf, "nft").containers(5)
			if err := os.Mkdir("/run/ipam-simple", 0o700); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("none", "/run/ipam-simple", "tmpfs", 0, "mode=700,size=1m"); err != nil {
				t.Fatal(err)
			}
			before := setuptest.Dump(t)
			verb := func(verb string, i int) call {
				c := on(verb, i, conf)
				c.args = fmt.Sprintf("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web%d", i)
				return c
			}
			for i := range 5 {
				verb("ADD", i+1).run(t).ok(t)
			}
			setuptest.FillDisk(t, "/run/ipam-simple/filler")
			for i := range 3 {
				verb("DEL", i+1).run(t).ok(t)
			}
			gc := on("GC", 0, conf.with(object{"cni.dev/valid-attachments": []object{}}))
			gc.container, gc.netns, gc.ifname = "", "", ""
			gc.run(t).ok(t)
			if held := leases(t); len(held) > 0 && !sticky {
				t.Errorf("leases are left: %v", held)
			}
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}
