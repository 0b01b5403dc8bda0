package cnitool

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// bvctl runs the program bvctl and returns its output and its exit status. The status is 1 if bvctl
// has found a fault, and otherwise 0.
func bvctl(t testing.TB, args ...string) (out string, status int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(programs, "bvctl"), append([]string{"--conf-dir", "/run/net.d"}, args...)...)
	var trouble strings.Builder
	cmd.Stderr = &trouble
	b, err := cmd.Output()
	if status = cmd.ProcessState.ExitCode(); status > 1 || trouble.Len() > 0 {
		t.Fatalf("bvctl %v: %v: %s", args, err, trouble.String())
	}
	return string(b), status
}

// TestLeases checks the leases that bvctl lists: those of running containers, of a container that
// died, and of a pod with a sticky address.
func TestLeases(t *testing.T) {
	t.Parallel()
	sticky := dual.with(object{"ipam": dual["ipam"].(object).with(object{"sticky": "1h", "stickyDir": "/run/sticky"})})
	n := newNode(t, sticky, "nft")
	c := n.containers(3)
	pod := on("ADD", 3, sticky)
	pod.args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"
	for _, a := range []call{on("ADD", 1, sticky), on("ADD", 2, sticky), pod} {
		a.run(t).ok(t)
	}
	pod.verb = "DEL"
	pod.run(t).ok(t)
	c[1].Close()
	if err := setup.DeleteNamed("c2"); err != nil {
		t.Fatal(err)
	}

	var got struct {
		Leases []struct{ Address, Container, Pod, State string }
		Ranges []struct {
			Network, Range string
			Leased, Size   uint64
		}
	}
	out, _ := bvctl(t, "leases", "-o", "json")
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	want := got
	want.Leases = nil
	for _, l := range [][4]string{
		{"10.88.0.2/24", "c1", "", "attached"}, {"10.88.0.3/24", "c2", "", "gone"}, {"10.88.0.4/24", "c3", "shop/web", "kept"},
		{"fd88::2/64", "c1", "", "attached"}, {"fd88::3/64", "c2", "", "gone"}, {"fd88::4/64", "c3", "shop/web", "kept"},
	} {
		want.Leases = append(want.Leases, struct{ Address, Container, Pod, State string }{l[0], l[1], l[2], l[3]})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(got.Ranges) != 2 || got.Ranges[0].Leased != 3 || got.Ranges[0].Size != 253 {
		t.Errorf("ranges %+v", got.Ranges)
	}

	table, _ := bvctl(t, "leases", "--container", "c3", "--address", "10.88.0.4")
	for _, want := range []string{"NETWORK", "shop/web", "kept until", "10.88.0.1-10.88.0.254", "[#...................]  3 of 253 leased", "3 of 1.8e+19 leased"} {
		if !strings.Contains(table, want) {
			t.Errorf("%q is not in\n%s", want, table)
		}
	}
	if strings.Contains(table, "c1") {
		t.Errorf("the filter excludes c1, but c1 is listed:\n%s", table)
	}

	// Without --force, bvctl frees only leases that are not in use. A lease counts as in use while
	// a link has the name of the lease's bridge port, even if the container's namespace is gone.
	gone := setup.Attachment{Network: "net", Container: "c2", Interface: "eth0"}
	harness.Await(t, "an end of the port with its namespace", func() bool {
		has, err := n.HasPort(gone)
		return err == nil && !has
	})
	setuptest.Run(t, "ip", "link", "add", gone.Port(), "type", "bridge")
	if out, status := bvctl(t, "leases", "release", "--container", "c2"); status != 1 || strings.Count(out, "may be in use (its link exists)") != 2 {
		t.Errorf("the container's link exists: status %d:\n%s", status, out)
	}
	setuptest.Run(t, "ip", "link", "delete", gone.Port())
	out, status := bvctl(t, "leases", "release", "--network", "net")
	if status != 1 || strings.Count(out, ": freed") != 4 || strings.Count(out, "not freed") != 2 {
		t.Errorf("status %d:\n%s", status, out)
	}
	if held := leases(t); !cmp.Equal(held, []string{"c1 10.88.0.2/24", "c1 fd88::2/64"}) {
		t.Errorf("still leased: %v", held)
	}
	if _, status := bvctl(t, "leases", "release", "--address", "fd88::2", "--force"); status != 0 || len(leases(t)) != 0 {
		t.Errorf("status %d, left: %v", status, leases(t))
	}
	if out, _ := bvctl(t, "leases"); !strings.Contains(out, "0 of 253 leased") {
		t.Errorf("an empty range of a configured network is not listed:\n%s", out)
	}
	if err := os.Remove("/run/net.d/10-net.conflist"); err != nil {
		t.Fatal(err)
	}
	if out, _ := bvctl(t, "leases"); strings.Contains(out, "253") {
		t.Errorf("a removed network is listed:\n%s", out)
	}
}

// TestLeasesCheck causes one fault at a time. It checks that bvctl finds this fault and no other,
// and that the command that bvctl prints fixes the fault.
func TestLeasesCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		spoil  func(n *node, c []*setup.Namespace)
		want   []string
		remedy func(n *node, c []*setup.Namespace)
	}{
		{"nothing", func(*node, []*setup.Namespace) {}, nil, nil},
		{"namespace gone, link gone", func(n *node, c []*setup.Namespace) {
			if err := setup.DeleteNamed("c1"); err != nil {
				n.t.Fatal(err)
			}
			setuptest.Run(n.t, "ip", "link", "delete", setup.Attachment{Network: "net", Container: "c1", Interface: "eth0"}.Port())
		}, []string{
			"10.88.0.2/24 is leased to container c1, interface eth0, but the container's network namespace /run/netns/c1 does not exist\n", "bvctl leases release --network net --address 10.88.0.2",
		}, func(n *node, _ []*setup.Namespace) {
			bvctl(n.t, "leases", "release", "--network", "net", "--address", "10.88.0.2")
		}},
		{"another namespace there, link left", func(n *node, c []*setup.Namespace) {
			setuptest.Run(n.t, "sh", "-c", "umount -l /run/netns/c1 && unshare -n mount --bind /proc/self/ns/net /run/netns/c1")
		}, []string{"but the container's network namespace /run/netns/c1 does not exist, and its link exists"}, func(n *node, _ []*setup.Namespace) {
			on("DEL", 1, dual).run(n.t).ok(n.t)
		}},
		{"address gone", func(n *node, c []*setup.Namespace) {
			setuptest.In(n.t, c[0], "ip", "addr", "del", "10.88.0.2/24", "dev", "eth0")
		}, []string{"10.88.0.2/24 is leased to container c1, interface eth0, but the interface has the addresses [fd88::2/64]"}, func(n *node, _ []*setup.Namespace) {
			on("DEL", 1, dual).run(n.t).ok(n.t)
			on("ADD", 1, dual).run(n.t).ok(n.t)
		}},
		{"lease gone", func(n *node, _ []*setup.Namespace) {
			bvctl(n.t, "leases", "release", "--container", "c1", "--force")
		}, []string{"container c1, network net: it has no lease"}, func(n *node, _ []*setup.Namespace) {
			on("DEL", 1, dual).run(n.t).ok(n.t)
			on("ADD", 1, dual).run(n.t).ok(n.t)
		}},
		{"rules gone", func(n *node, _ []*setup.Namespace) {
			setuptest.Run(n.t, "nft", "flush", "ruleset")
			setuptest.DropForward(n.t, "iptables-nft", "ip6tables-nft")
		}, []string{"network net: rules of bridge br0 in iptables-nft filter FORWARD: missing", "network net: masquerade of 10.88.0.0/24"}, func(n *node, c []*setup.Namespace) {
			setuptest.Container(n.t, "c3")
			on("ADD", 3, dual).run(n.t).ok(n.t)
		}},
		{"port down after a killed ADD", func(n *node, c []*setup.Namespace) {
			setuptest.Run(n.t, "ip", "link", "set", setup.Attachment{Network: "net", Container: "c1", Interface: "eth0"}.Port(), "down")
		}, []string{"is incomplete: its ADD was killed"}, func(n *node, _ []*setup.Namespace) {
			on("ADD", 1, dual).run(n.t).ok(n.t)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, dual, "nft")
			c := n.containers(2)
			on("ADD", 1, dual).run(t).ok(t)
			on("ADD", 2, dual).run(t).ok(t)
			tt.spoil(n, c)
			before := setuptest.Dump(t)
			out, status := bvctl(t, "leases", "check")
			setuptest.Same(t, before, "it changed something")
			if tt.want == nil {
				if status != 0 || out != "4 leases: no problems found\n" {
					t.Errorf("status %d:\n%s", status, out)
				}
				return
			}
			for _, want := range tt.want {
				if status != 1 || !strings.Contains(out, want) {
					t.Errorf("status %d, %q is not in\n%s", status, want, out)
				}
			}
			if strings.Contains(out, "c2") {
				t.Errorf("c2 has no fault, but is listed:\n%s", out)
			}
			tt.remedy(n, c)
			if out, status := bvctl(t, "leases", "check"); status != 0 {
				t.Errorf("not restored:\n%s", out)
			}
		})
	}
}

// TestBvctlMistakes checks that bvctl's errors name the wrong argument, and that bvctl finds no
// fault on a host without networks.
func TestBvctlMistakes(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft")
	if out, status := bvctl(t, "leases", "check"); status != 0 || out != "0 leases: no problems found\n" {
		t.Errorf("status %d: %s", status, out)
	}
	if out, status := bvctl(t, "leases", "-o", "json"); status != 0 || !strings.Contains(out, `"leases": []`) {
		t.Errorf("status %d: %s", status, out)
	}
	if err := os.WriteFile("/run/net.d/20-broken.conflist", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ args, want string }{
		{"leases -o xml", `--output: "xml" is none of table, json`},
		{"leases release", "no lease is chosen; set --container, --address or --network"},
		{"leases release --address ten", `--address: "ten" is no IP address`},
		{"leases --address ten", `--address: "ten" is no IP address`},
		{"leases", "/run/net.d/20-broken.conflist"},
	} {
		cmd := exec.Command(filepath.Join(programs, "bvctl"), append([]string{"--conf-dir", "/run/net.d"}, strings.Fields(tt.args)...)...)
		if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: %q is not in\n%s", tt.args, tt.want, out)
		}
	}
}

// TestBvctlReadsOnce checks that bvctl reports an unreadable configuration only once.
func TestBvctlReadsOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	n.must("add", n.containers(1)...)
	if err := os.WriteFile("/run/net.d/20-broken.conflist", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"repair", "leases check", "leases", "inspect"} {
		cmd := exec.Command(filepath.Join(programs, "bvctl"), append([]string{"--conf-dir", "/run/net.d"}, strings.Fields(args)...)...)
		if out, err := cmd.CombinedOutput(); err != nil || strings.Count(string(out), "20-broken.conflist") != 1 {
			t.Errorf("%s: %v: %s", args, err, out)
		}
	}
}

// TestBvctlSinglePlugin checks that bvctl repairs a network whose configuration is a single
// plugin instead of a list. bvctl takes the configuration from libcni's record of the container
// or, if there is no record, from the file.
func TestBvctlSinglePlugin(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	conf, err := json.Marshal(single.with(object{"cniVersion": "0.4.0", "name": "net"}))
	if err == nil {
		err = errors.Join(os.Remove("/run/net.d/10-net.conflist"), os.WriteFile("/run/net.d/10-net.conf", conf, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	n.must("add", n.containers(1)...)
	record := func(conf []byte) {
		t.Helper()
		files, err := filepath.Glob("/var/lib/cni/results/*")
		if err != nil || len(files) != 1 {
			t.Fatalf("%v: %v", files, err)
		}
		if conf == nil {
			err = os.Remove(files[0])
		} else {
			var r object
			b, unread := os.ReadFile(files[0])
			err = errors.Join(unread, json.Unmarshal(b, &r))
			r["config"] = conf // the record of a runtime that calls single plugins
			b, unwritten := json.Marshal(r)
			err = errors.Join(err, unwritten, os.WriteFile(files[0], b, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		conf []byte
		want string
	}{{conf, "network net, container cnitool-"}, {nil, "network net: "}} {
		record(tt.conf)
		setuptest.Run(t, "nft", "flush", "chain", "ip", "bridgeveth", "postrouting")
		if out, status := bvctl(t, "repair"); status != 0 || !strings.HasPrefix(out, tt.want) || !strings.Contains(out, "restored masquerade of 10.88.0.0/24") {
			t.Errorf("status %d, %q is not in %s", status, tt.want, out)
		}
	}
}

// TestBvctlDamagedStore checks that bvctl names two damaged stores, and that it still reads the
// leases in the undamaged store between them.
func TestBvctlDamagedStore(t *testing.T) {
	t.Parallel()
	in := func(dir string) object {
		return single.with(object{"ipam": single["ipam"].(object).with(object{"dataDir": dir})})
	}
	n := newNode(t, in("/run/healthy"), "nft")
	n.must("add", n.containers(1)...)
	list, err := json.Marshal(object{"cniVersion": "1.1.0", "name": "other", "plugins": []object{in("/run/damaged")}})
	if err == nil {
		err = os.WriteFile("/run/net.d/20-other.conflist", list, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	setuptest.Run(t, "sh", "-c", `for dir in /run/ipam-simple /run/damaged; do mkdir $dir; echo >$dir/$(basename /run/healthy/leases-*.db); done
		nft flush chain ip bridgeveth postrouting`)
	for _, tt := range []struct{ args, want string }{
		{"leases", "10.88.0.2/24"},
		{"leases -o json", "10.88.0.2/24"},
		{"inspect", "10.88.0.2/24"},
		{"inspect -o json", "10.88.0.2/24"},
		{"topology", "10.88.0.2/24"},
		{"repair", "restored masquerade of 10.88.0.0/24"},
		{"leases release --address 10.88.0.2 --force", "10.88.0.2/24 of container"},
	} {
		cmd := exec.Command(filepath.Join(programs, "bvctl"), append([]string{"--conf-dir", "/run/net.d"}, strings.Fields(tt.args)...)...)
		var trouble strings.Builder
		cmd.Stderr = &trouble
		out, _ := cmd.Output()
		said := trouble.String()
		if status := cmd.ProcessState.ExitCode(); status != 2 || !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: status %d, %q is not in\n%s", tt.args, status, tt.want, out)
		}
		if !strings.Contains(said, "/run/ipam-simple/") || !strings.Contains(said, "/run/damaged/") {
			t.Errorf("%s: the error does not name both stores: %s", tt.args, said)
		}
	}
}

// TestBvctlNeedsRoot checks the error of each command of bvctl that runs as another user than root.
func TestBvctlNeedsRoot(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"doctor", "inspect", "leases", "leases check", "leases release --address 10.88.0.2", "metrics", "repair", "topology"} {
		cmd := exec.Command(filepath.Join(programs, "bvctl"), strings.Fields(command)...)
		// In a user namespace, the test's own user gets the ID of another user than root. The
		// command can then still execute its file.
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Geteuid(), Size: 1}}}
		out, _ := cmd.CombinedOutput()
		name, _, _ := strings.Cut(command, " --")
		want := "bvctl: bvctl " + name + " needs root"
		if status := cmd.ProcessState.ExitCode(); status != 2 || !strings.HasPrefix(string(out), want) {
			t.Errorf("bvctl %s: status %d, want 2: %s", command, status, out)
		}
	}
}
