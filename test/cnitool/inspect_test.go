package cnitool

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestInspect checks the output of bvctl inspect for containers in each state that a bridge port
// can have. bvctl combines data of the kernel, of libcni's records and of the leases.
func TestInspect(t *testing.T) {
	t.Parallel()
	conf := dual.with(object{"capabilities": object{"portMappings": true, "bandwidth": true}})
	n := newNode(t, conf, "nft")
	n.env = []string{`CAP_ARGS={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}], "bandwidth": {"ingressRate": 10000000, "ingressBurst": 1000000, "egressRate": 2500000, "egressBurst": 1000000}}`}
	c := n.containers(4)
	n.must("add", c[0])
	n.env = nil
	n.must("add", c[1:3]...)
	on("ADD", 4, dual).run(t).ok(t) // this container has no record of libcni
	var list []struct {
		Container, Namespace, Port, State string
		Addresses, HostPorts              []string
		Bandwidth                         *struct{ IngressRate, EgressRate int }
	}
	read := func() {
		t.Helper()
		out, status := bvctl(t, "inspect", "-o", "json")
		if err := json.Unmarshal([]byte(out), &list); err != nil || status != 0 || len(list) != 4 {
			t.Fatalf("status %d, %v: %s", status, err, out)
		}
	}
	read()
	spoil := map[string]string{}
	for _, a := range list {
		if a.State != "forwarding" || len(a.Addresses) != 2 {
			t.Errorf("%+v", a)
		}
		switch a.Namespace {
		case "/run/netns/c1":
			if strings.Join(a.HostPorts, " ") != "tcp *:8080" {
				t.Errorf("host ports %v", a.HostPorts)
			}
			if a.Bandwidth == nil || a.Bandwidth.IngressRate != 10e6 || a.Bandwidth.EgressRate != 2500e3 {
				t.Errorf("limits %+v", a.Bandwidth)
			}
			spoil[a.Namespace] = "off its bridge"
			setuptest.Run(t, "ip", "link", "set", a.Port, "nomaster")
		case "/run/netns/c2":
			if a.Bandwidth != nil {
				t.Errorf("limits %+v", a.Bandwidth)
			}
			spoil[a.Namespace] = "missing"
			setuptest.Run(t, "ip", "link", "delete", a.Port)
		case "/run/netns/c3":
			spoil[a.Namespace] = "down"
			setuptest.Run(t, "ip", "link", "set", a.Port, "down")
		case "/run/netns/c4":
			if a.Container != "c4" {
				t.Errorf("container %q", a.Container)
			}
			spoil[a.Namespace] = "forwarding"
		}
	}
	read()
	for _, a := range list {
		if a.State != spoil[a.Namespace] {
			t.Errorf("%s: %q, want %q", a.Namespace, a.State, spoil[a.Namespace])
		}
	}
	if table, _ := bvctl(t, "inspect"); !strings.Contains(table, "10.88.0.5/24 fd88::5/64") || !strings.Contains(table, "tcp *:8080  in 10M out 2.5M  ") {
		t.Errorf("the table:\n%s", table)
	}
}

// TestInspectLayer2 checks that bvctl inspect lists a container without addresses.
func TestInspectLayer2(t *testing.T) {
	t.Parallel()
	n := newNode(t, object{"type": "bridgeveth", "bridge": "br0"}, "nft")
	n.must("add", n.containers(1)...)
	if out, status := bvctl(t, "inspect", "-o", "json"); status != 0 || !strings.Contains(out, `"addresses": []`) {
		t.Errorf("status %d: %s", status, out)
	}
}

// TestInspectRecords checks that bvctl inspect names each unusable record of libcni, and that it
// still lists the record's container.
func TestInspectRecords(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	n.must("add", n.containers(1)...)
	files, err := filepath.Glob("/var/lib/cni/results/net-*")
	if err != nil || len(files) != 1 {
		t.Fatalf("%v: %v", files, err)
	}
	for _, tt := range []struct{ name, edit, want string }{
		{"configuration", `sed -i 's/"config":"[^"]*"/"config":"e30="/' ` + files[0], "bvctl: network net, container cnitool-"},
		{"empty record", "echo null >" + files[0], "bvctl: " + files[0] + ": "},
	} {
		setuptest.Run(t, "sh", "-c", tt.edit)
		cmd := exec.Command(filepath.Join(programs, "bvctl"), "--conf-dir", "/run/net.d", "inspect")
		var trouble strings.Builder
		cmd.Stderr = &trouble
		out, err := cmd.Output()
		if err != nil || strings.Count(trouble.String(), "\n") != 1 || !strings.HasPrefix(trouble.String(), tt.want) || !strings.Contains(string(out), "10.88.0.2/24") {
			t.Errorf("%s: %v, standard error %q, want %q: %s", tt.name, err, trouble.String(), tt.want, out)
		}
	}
}

// TestUnreadableConfiguration checks that each command of bvctl reports a configuration file that
// is not JSON exactly once, and does not stop there.
func TestUnreadableConfiguration(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	n.must("add", n.containers(1)...)
	setuptest.Run(t, "sh", "-c", "echo { >/run/net.d/20-broken.conflist")
	for _, args := range [][]string{{"inspect"}, {"doctor"}, {"leases"}, {"leases", "check"}, {"metrics"}, {"repair"}, {"topology"}} {
		cmd := exec.Command(filepath.Join(programs, "bvctl"), append([]string{"--conf-dir", "/run/net.d"}, args...)...)
		var trouble strings.Builder
		cmd.Stderr = &trouble
		if err := cmd.Run(); err != nil || strings.Count(trouble.String(), "20-broken.conflist") != 1 {
			t.Errorf("bvctl %v: %v, standard error %q", args, err, trouble.String())
		}
	}
}
