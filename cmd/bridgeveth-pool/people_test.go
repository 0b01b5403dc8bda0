package main

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/etcdtest"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
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

// TestBvctlPoolCheck checks the exit status of "bvctl pool check", and that it also looks at links.
func TestBvctlPoolCheck(t *testing.T) {
	t.Parallel()
	port := freePort()
	a := newMachine(t, withBvctl(t, programs(t)), "a", port)
	if out, errs, status := a.bvctl("check"); status != 2 || out != "" || !strings.Contains(errs, "etcd unreachable since the boot") {
		t.Errorf("without etcd: %q, %q, %d", out, errs, status)
	}
	etcd := etcdtest.StartCluster(t, etcdtest.Options{Port: port})
	address, err := a.call("ADD", "c1")
	if err != nil {
		t.Fatal(err)
	}
	const sound = "1 hosts, 1 blocks: no contradictions found\n"
	out, errs, status := a.bvctl("check")
	if want := address + " is leased to container c1, interface eth0, but the interface has the addresses []"; status != 1 || errs != "" || !strings.HasPrefix(out, sound) || !strings.Contains(out, want) {
		t.Errorf("a lease without a link: %q, %q, %d", out, errs, status)
	}
	if _, err := a.call("DEL", "c1"); err != nil {
		t.Fatal(err)
	}
	if out, errs, status := a.bvctl("check"); status != 0 || errs != "" || out != sound+"0 leases: no problems found\n" {
		t.Errorf("no contradiction: %q, %q, %d", out, errs, status)
	}
	if _, err := etcd.Client().Delete(etcdtest.Deadline(t), "/bridgeveth/v1/size/ipv4"); err != nil {
		t.Fatal(err)
	}
	if out, errs, status := a.bvctl("check"); status != 1 || errs != "" || !strings.Contains(out, "etcd key /bridgeveth/v1/size/ipv4 is missing") {
		t.Errorf("a key is missing: %q, %q, %d", out, errs, status)
	}
}

// TestBvctlPoolRelease takes the blocks from a host, which is named by its host name and by its ID.
func TestBvctlPoolRelease(t *testing.T) {
	t.Parallel()
	bin, port := withBvctl(t, programs(t)), freePort()
	a, b := newMachine(t, bin, "a", port), newMachine(t, bin, "b", port)
	if _, errs, status := a.bvctl("release"); status != 2 || !strings.Contains(errs, "no host is chosen") {
		t.Errorf("without a host: %q, %d", errs, status)
	}
	c := etcdtest.StartCluster(t, etcdtest.Options{Port: port}).Client()
	for _, m := range []*machine{a, b} {
		if _, err := m.call("ADD", "c1"); err != nil {
			t.Fatal(err)
		}
	}
	name, err := os.Hostname() // both machines have the same name
	if err != nil {
		t.Fatal(err)
	}
	_, errs, status := a.bvctl("forget", "--host", name)
	before, id, found := strings.Cut(strings.TrimSpace(errs), "give the ID of one: ")
	if ids := strings.Split(id, ", "); status != 2 || !found || len(ids) != 2 || !strings.Contains(before, "2 hosts have the name") {
		t.Fatalf("an ambiguous name: %q, %d", errs, status)
	}
	if _, errs, status := a.bvctl("release", "--host", "none"); status != 2 || !strings.Contains(errs, `no host of the pool has the name or ID "none"`) {
		t.Errorf("an unknown host: %q, %d", errs, status)
	}
	released, refused := "", 0
	for _, id := range strings.Split(id, ", ") {
		out, errs, status := a.bvctl("release", "--host", id)
		if status == 0 {
			released += out
		} else if status == 2 && strings.Contains(errs, "is this host, and it is up") {
			refused++
		}
	}
	if want := "network net: 1 blocks released\n"; refused != 1 || !strings.HasSuffix(released, want) || strings.Count(released, "\n") != 1 {
		t.Errorf("released %q, %d refused", released, refused)
	}
	blocks, err := c.Get(etcdtest.Deadline(t), "/bridgeveth/v1/blocks/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || blocks.Count != 1 {
		t.Errorf("%v, %v", blocks, err)
	}
}

// TestBvctlMetrics checks the metrics of a pool: before etcd was heard, after an ADD, and after etcd has ended.
func TestBvctlMetrics(t *testing.T) {
	t.Parallel()
	port := freePort()
	a := newMachine(t, withBvctl(t, programs(t)), "a", port)
	metrics := func() map[string]string {
		t.Helper()
		out, err := a.command("bvctl", "--conf-dir", a.conf, "metrics").Output()
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]string{}
		for _, line := range strings.Split(string(out), "\n") {
			if name, value, _ := strings.Cut(line, `{network="net"} `); strings.HasPrefix(name, "bridgeveth_pool_") {
				values[strings.TrimPrefix(name, "bridgeveth_pool_")] = value
			}
		}
		return values
	}
	silence := func(values map[string]string) int {
		t.Helper()
		seconds, err := strconv.Atoi(values["etcd_silence_seconds"])
		if err != nil {
			t.Fatal(err)
		}
		return seconds
	}
	now, err := ipam.SinceBoot()
	if err != nil {
		t.Fatal(err)
	}
	if got := metrics(); got["blocks"] != "0" || got["free_addresses"] != "0" || silence(got) < int(now.Seconds()) {
		t.Errorf("before etcd was heard: %v", got)
	}
	etcd := etcdtest.StartCluster(t, etcdtest.Options{Port: port})
	if _, err := a.call("ADD", "c1"); err != nil {
		t.Fatal(err)
	}
	blocks, err := etcd.Client().Get(etcdtest.Deadline(t), "/bridgeveth/v1/blocks/", clientv3.WithPrefix())
	if err != nil || len(blocks.Kvs) != 1 {
		t.Fatalf("%v, %v", blocks, err)
	}
	etcd.Kill(0)
	block := strings.TrimPrefix(string(blocks.Kvs[0].Key), "/bridgeveth/v1/blocks/")
	free := map[string]string{"10.1.0.0/29": "5", "10.1.0.56/29": "6"}[block] // without the gateway, and without the network's first or last address
	if got := metrics(); got["blocks"] != "1" || got["free_addresses"] != cmp.Or(free, "7") || silence(got) >= int(now.Seconds()) {
		t.Errorf("after an ADD in %s: %v", block, got)
	}
}

// TestBvctlPool lists the hosts of a pool by bvctl, which runs bridgeveth-pool.
func TestBvctlPool(t *testing.T) {
	t.Parallel()
	port := freePort()
	a := newMachine(t, withBvctl(t, programs(t)), "a", port)
	if out, errs, status := a.bvctl(); status != 2 || out != "" || !strings.Contains(errs, "bvctl: bridgeveth-pool: network net: etcd unreachable since the boot") {
		t.Errorf("without etcd: %q, %q, %d", out, errs, status)
	}
	etcdtest.StartCluster(t, etcdtest.Options{Port: port})
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
