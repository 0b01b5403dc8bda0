package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
)

// TestRequested requests addresses of blocks that nobody owns, that this host owns, and that another
// host owns, and then without etcd.
func TestRequested(t *testing.T) {
	t.Parallel()
	bin, port := programs(t), freePort()
	a, b := newMachine(t, bin, "a", port), newMachine(t, bin, "b", port)
	for _, m := range []*machine{a, b} {
		conf := `{"cniVersion": "1.1.0", "name": "net", "type": "ipam-simple", "runtimeConfig": {"ips": IPS}, "ipam": {"type": "ipam-simple",
			"subnet": "10.1.0.0/26", "static": ["10.1.0.48-10.1.0.50"], "pool": {"etcd": {"endpoints": ["http://127.0.0.1:PORT"]}, "block": 29}}}`
		if err := os.WriteFile(filepath.Join(m.conf, "template"), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	add := func(m *machine, container, ips string) (string, error) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(m.conf, "template"))
		if err == nil {
			err = os.WriteFile(filepath.Join(m.conf, "net.conf"), []byte(strings.NewReplacer("IPS", ips, "PORT", fmt.Sprint(port)).Replace(string(text))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return m.call("ADD", container)
	}
	want := func(m *machine, container, address string) {
		t.Helper()
		if got, err := add(m, container, fmt.Sprintf("[%q]", address)); got != address+"/26" || err != nil {
			t.Errorf("got %s, %v, want %s", got, err, address)
		}
	}
	refused := func(m *machine, container, address string, all ...string) {
		t.Helper()
		_, err := add(m, container, fmt.Sprintf("[%q]", address))
		for _, text := range all {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v, want %s", address, err, text)
			}
		}
	}
	etcd := etcdtest.StartCluster(t, etcdtest.Options{Port: port})
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want(a, "a1", "10.1.0.10") // the first call of the host
	want(a, "a2", "10.1.0.11")
	want(a, "a3", "10.1.0.25")
	want(a, "a4", "10.1.0.49")
	for _, address := range []string{"10.1.0.12", "10.1.0.10", "10.1.0.48"} {
		refused(b, "b1", address, "this host has no block with "+address, "address "+address+": block 10.1.0.", fmt.Sprintf("/29 belongs to host %q (ID ", name), ", network net)")
	}
	refused(a, "a5", "10.1.0.11", "10.1.0.11 is leased already: to container a2")
	refused(b, "b1", "10.1.0.1", "it is the address of the gateway")
	refused(b, "b1", "10.1.9.1", "it is outside the ranges 10.1.0.1-10.1.0.47, 10.1.0.51-10.1.0.62")
	want(b, "b1", "10.1.0.40")
	if got, err := add(b, "b2", "[]"); err != nil || !strings.HasPrefix(got, "10.1.0.4") {
		t.Errorf("an address of b's block: %s, %v", got, err)
	}
	owned, err := etcd.Client().Get(etcdtest.Deadline(t), "/bridgeveth/v1/blocks/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	free := "" // an address of a block that nobody owns
	for i := range 8 {
		if !strings.Contains(fmt.Sprint(owned.Kvs), fmt.Sprintf("/10.1.0.%d/29", 8*i)) {
			free = fmt.Sprint("10.1.0.", 8*i+5)
		}
	}
	etcd.Kill(0)
	refused(b, "b3", free, "this host has no block with "+free, "etcd unreachable since 2")
	want(b, "b3", "10.1.0.45")
}
