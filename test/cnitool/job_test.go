package cnitool

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// TestMainJob attaches three containers while the policy of FORWARD is DROP. It checks by ping
// which paths work, and detaches the containers.
func TestMainJob(t *testing.T) {
	t.Parallel()
	for _, flavours := range []string{"nft", "legacy", "nft legacy"} {
		for _, tt := range []struct {
			forward          string
			onBridge, beyond bool
		}{
			{"none", false, false}, {"iptables", true, true}, {"sysctl", true, false},
		} {
			for _, masquerade := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s/masquerade=%v", flavours, tt.forward, masquerade), func(t *testing.T) {
					t.Parallel()
					n := newNode(t, dual.with(object{"forward": tt.forward, "ipMasq": masquerade}), strings.Fields(flavours)...)
					outside := n.outside(!masquerade)
					c := n.containers(3)
					before := setuptest.Dump(t)
					n.must("add", c...)
					n.must("check", c...)
					n.must("status", nil)
					for _, path := range []struct {
						from *setup.Namespace
						to   []string
						want bool
					}{
						{c[0], []string{"10.88.0.3", "fd88::3"}, tt.onBridge},
						{c[2], []string{"10.88.0.2", "fd88::2"}, tt.onBridge},
						{c[1], []string{"10.88.0.1", "fd88::1"}, true},
						{n.Namespace, []string{"10.88.0.4", "fd88::4"}, true},
						{c[0], []string{"192.0.2.2", "2001:db8::2"}, tt.beyond},
						{outside, []string{"10.88.0.2", "fd88::2"}, tt.beyond && !masquerade}, // there is no route back
					} {
						for _, to := range path.to {
							if got := setuptest.Ping(t, path.from, to); got != path.want {
								t.Errorf("ping from %s to %s: %v, want %v", path.from.Path, to, got, path.want)
							}
						}
					}
					n.must("del", c...)
					n.must("del", c[0]) // a repeated DEL
					setuptest.Same(t, before, "DEL left traces")
					noLeases(t)
				})
			}
		}
	}
}

// leases returns the leases in the store, each with its attachment.
func leases(t testing.TB) (holders []string) {
	t.Helper()
	all, err := harness.Leases("net")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		holders = append(holders, l.Container+" "+l.Address.String())
	}
	return holders
}

// noLeases fails the test if there is a lease.
func noLeases(t testing.TB) {
	t.Helper()
	if held := leases(t); len(held) > 0 {
		t.Errorf("leases are left: %v", held)
	}
}

// TestGC calls GC with a list of valid attachments in which one attachment is missing, as after a
// crash of the runtime. It checks that GC removes this attachment and no other.
func TestGC(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := n.containers(2)
	n.must("add", c...)
	stale, err := filepath.Glob("/var/lib/cni/results/net-*")
	if err != nil || len(stale) != 2 {
		t.Fatalf("results in libcni's cache: %v, %v", stale, err)
	}
	ids := make([]string, 2) // container IDs of cnitool
	for i, path := range stale {
		ids[i] = strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "net-"), "-eth0")
	}
	conf := single.with(object{"cni.dev/valid-attachments": []object{{"containerID": ids[0], "ifname": "eth0"}}})
	call{verb: "GC", conf: conf}.run(t).ok(t)
	held := leases(t)
	if len(held) != 1 || !strings.HasPrefix(held[0], ids[0]) {
		t.Errorf("leases after GC: %v, want that of %s", held, ids[0])
	}
	if got := strings.Count(setuptest.Run(t, "ip", "-o", "link", "show", "master", "br0"), "\n"); got != 1 {
		t.Errorf("%d ports after GC, want 1", got)
	}
	for _, tt := range []struct {
		name  string
		conf  object
		code  uint
		ports bool
	}{
		{"no list", single, 7, true},
		{"null", single.with(object{"cni.dev/valid-attachments": nil}), 0, false},
	} {
		a := call{verb: "GC", conf: tt.conf}.run(t)
		if tt.code != 0 {
			if f := a.failed(t); f.Code != tt.code || !strings.Contains(f.Msg, "cni.dev/valid-attachments") {
				t.Errorf("%s: got %+v, want code %d", tt.name, f, tt.code)
			}
		} else {
			a.ok(t)
		}
		if got := len(leases(t)) == 1; got != tt.ports {
			t.Errorf("%s: the attachment is there: %v, want %v", tt.name, got, tt.ports)
		}
	}
}

// TestCnitoolGC checks `cnitool gc`. libcni detaches each attachment in its cache, and then calls
// GC without a list of valid attachments. GC must not treat the missing list as an empty list.
func TestCnitoolGC(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	before := setuptest.Dump(t)
	n.must("add", n.containers(2)...)
	err := n.cnitool("gc", nil)
	if err == nil || !strings.Contains(err.Error(), "cni.dev/valid-attachments: the key is missing") {
		t.Errorf("got %v, want a refusal that names the key", err)
	}
	setuptest.Same(t, before, "gc left traces")
	noLeases(t)
}

// TestDelegates checks ADD, CHECK, STATUS and DEL with several IPAM plugins. ipam-simple runs in
// bridgeveth's process if both are the same executable file, and otherwise as a program.
func TestDelegates(t *testing.T) {
	t.Parallel()
	copied := filepath.Join(t.TempDir(), "ipam-simple")
	b, err := os.ReadFile(filepath.Join(programs, "ipam-simple"))
	if err != nil {
		t.Fatal(err)
	}
	setuptest.WriteProgram(t, copied, string(b))
	for _, tt := range []struct {
		name    string
		ipam    object
		prepare func(testing.TB)
	}{
		{"host-local", object{"type": "host-local", "subnet": "10.88.0.0/24", "dataDir": "/run/host-local"}, nil},
		{"static", object{"type": "static", "addresses": []object{{"address": "10.88.0.2/24", "gateway": "10.88.0.1"}}}, nil},
		{"ipam-simple in its process", object{"type": "ipam-simple", "subnet": "10.88.0.0/24"}, nil},
		{"ipam-simple from another file", object{"type": "ipam-simple", "subnet": "10.88.0.0/24"}, func(t testing.TB) {
			setuptest.Run(t, "mount", "--bind", copied, filepath.Join(programs, "ipam-simple"))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, single.with(object{"ipam": tt.ipam}), "nft")
			if tt.prepare != nil {
				tt.prepare(t)
			}
			c := n.containers(1)
			before := setuptest.Dump(t)
			n.must("add", c...)
			n.must("check", c...)
			n.must("status", nil)
			addresses := setuptest.In(t, c[0], "ip", "-o", "-4", "addr", "show", "eth0")
			if !strings.Contains(addresses, "10.88.0.2/24") {
				t.Errorf("got %s", addresses)
			}
			if !setuptest.Ping(t, c[0], "10.88.0.1") {
				t.Error("no answer from the gateway")
			}
			n.must("del", c...)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}

// TestStartsNoProgram checks by strace that a call of the plugin starts no program if the host
// already has all rules and settings of the network.
func TestStartsNoProgram(t *testing.T) {
	t.Parallel()
	n := newNode(t, dual, "nft", "legacy")
	n.containers(3)
	published := publishing(dual, object{"hostPort": 8080, "containerPort": 80})
	first := on("ADD", 1, dual).run(t).ok(t)
	trace := []string{"strace", "-f", "-qq", "-o", "/run/trace", "-e", "trace=execve,execveat"}
	check := dual.with(object{"prevResult": json.RawMessage(first.stdout)})
	for _, c := range []call{on("ADD", 2, dual), on("CHECK", 1, check), on("STATUS", 1, dual), on("DEL", 2, dual), on("ADD", 2, published), on("DEL", 2, published)} {
		c.before = trace
		c.run(t).ok(t)
		got, err := os.ReadFile("/run/trace")
		if err != nil {
			t.Fatal(err)
		}
		if count := strings.Count(string(got), "execve"); count != 1 {
			t.Errorf("%s started %d programs:\n%s", c.verb, count, got)
		}
	}
	// ADD starts programs to restore rules of iptables-legacy. If the trace did not show these
	// programs, the check above would prove nothing.
	setuptest.Run(t, "iptables-legacy", "-F", "FORWARD")
	c := on("ADD", 3, dual)
	c.before = trace
	c.run(t).ok(t)
	if got, _ := os.ReadFile("/run/trace"); strings.Count(string(got), "execve") < 2 {
		t.Errorf("the trace shows no program although rules were missing:\n%s", got)
	}
}

// TestManyCycles attaches and detaches a container a hundred times while another container runs. It
// checks that nothing is left. TestTwentyAtOnce does this in parallel.
func TestManyCycles(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft").containers(2)
	on("ADD", 1, single).run(t).ok(t)
	before := setuptest.Dump(t)
	for range 100 {
		on("ADD", 2, single).run(t).ok(t)
		on("DEL", 2, single).run(t).ok(t)
	}
	setuptest.Same(t, before, "100 cycles left traces")
}

// TestConcurrentAddAndDel attaches and detaches containers in parallel. The DEL of the last
// container may then remove the bridge and the rules while the next ADD makes them. The test checks
// that each container reaches its gateway and has its rules as long as it is attached.
func TestConcurrentAddAndDel(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft")
	for i := range 4 {
		setuptest.Container(t, fmt.Sprintf("c%d", i+1))
	}
	before := setuptest.Dump(t)
	conf, err := json.Marshal(object{"cniVersion": "1.1.0", "name": "net"}.with(single))
	if err == nil {
		err = os.WriteFile("/run/conf.json", conf, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	const each = `set -e
		export CNI_PATH=%[1]s CNI_CONTAINERID=c%[2]d CNI_NETNS=/run/netns/c%[2]d CNI_IFNAME=eth0
		for i in $(seq 12); do
			CNI_COMMAND=ADD %[1]s/bridgeveth </run/conf.json >/run/c%[2]d.json
			ip netns exec c%[2]d ping -q -n -c 1 -W 2 10.88.0.1
			iptables -C FORWARD -j BRIDGEVETH-FORWARD
			iptables -C BRIDGEVETH-FORWARD -i br0 -j ACCEPT
			nft list chain ip bridgeveth postrouting >/run/c%[2]d.nft
			CNI_COMMAND=DEL %[1]s/bridgeveth </run/conf.json
		done`
	var running []*exec.Cmd
	outputs := make([]bytes.Buffer, 4)
	for i := range outputs {
		cmd := exec.Command("sh", "-c", fmt.Sprintf(each, programs, i+1))
		cmd.Stdout, cmd.Stderr = &outputs[i], &outputs[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, cmd)
	}
	for i, cmd := range running {
		if err := cmd.Wait(); err != nil {
			said, _ := os.ReadFile(fmt.Sprintf("/run/c%d.json", i+1))
			t.Errorf("container %d: %v\n%s%s", i+1, err, outputs[i].String(), said)
		}
	}
	setuptest.Same(t, before, "something is left")
}
