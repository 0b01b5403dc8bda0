package cnitool

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// older is an earlier build of the plugins. hack/older.sh builds it from its commit.
type older struct {
	commit string   // the first commit that wrote these forms
	keys   object   // keys that the build knows
	ports  bool     // the build knows host ports
	lacks  []string // what CHECK of today's build names before an ADD or a repair has added it
	leases bool     // today's build can read its leases
}

// olderBuilds are the first builds that wrote each form of aliases, leases, rules and sets.
var olderBuilds = []older{
	// Leases of eight fields, rules of masquerade in the chain masquerade.
	{"500e2fc", nil, false, []string{"FORWARD: missing", "masquerade of 10.88.0.0/24 behind br0: missing"}, false},
	// Leases of eleven fields, host ports in rules without comments.
	{"24743b3", nil, true, []string{"FORWARD: missing", "host ports of 10.88.0.0/24 behind br0: missing"}, true},
	// Guards and policies.
	{"761c38b", guarded, true, []string{"FORWARD: missing", "guard against spoofed addresses on br0: missing"}, true},
	// A chain for the administrator in FORWARD, and a list of host ports for other programs.
	{"3cf396d", guarded, true, []string{"guard against spoofed addresses on br0: missing"}, true},
	// Rules with comments.
	{"c8cb902", guarded, true, nil, true},
	// Masquerade of labelled connections only.
	{"80f5913", guarded, true, nil, true},
	// Format 2 of the store, host ports that interfaces share, other MAC addresses of ports.
	{"59fae85", guarded, true, newest, true},
	// Guards that each nft can load.
	{"cd08033", guarded, true, newest, true},
	// Flowtables.
	{"ec8f741", guarded.with(object{"fastPath": "auto"}), true, nil, true},
}

var (
	guarded = object{"ipspoofchk": true, "ingressPolicy": "same-bridge"}
	newest  = []string{"limit of learned addresses of bridge br0: missing", "BPDU guard of port"}
)

func anyBuild(older) bool { return true }

// olderFolder returns the folder with the earlier builds. If there is none, it skips the test.
func olderFolder(t *testing.T) string {
	t.Helper()
	folder := os.Getenv("OLDER_BUILDS")
	if found, err := os.ReadDir(folder); len(found) == 0 || err != nil {
		t.Skip("LISTED SKIP: no earlier builds: run make test in a clone with the whole history")
	}
	return folder
}

// eachOlder runs a test for each earlier build that the function usable accepts.
func eachOlder(t *testing.T, usable func(older) bool, test func(t *testing.T, o older, dir string)) {
	t.Helper()
	folder := olderFolder(t)
	for _, o := range olderBuilds {
		dir := filepath.Join(folder, o.commit)
		if _, err := os.Stat(filepath.Join(dir, "bridgeveth")); err != nil || !usable(o) {
			continue // make test builds only some of them
		}
		t.Run(o.commit, func(t *testing.T) {
			t.Parallel()
			test(t, o, dir)
		})
	}
}

// conf returns the configuration of a network for an earlier build.
func (o older) conf() object {
	return dual.with(o.keys).with(object{"capabilities": object{"portMappings": o.ports}})
}

// by makes the node call the plugins in a folder, with a host port for a container.
func (n *node) by(dir, port string) *node {
	n.env = []string{"CNI_PATH=" + dir + ":" + programs}
	if port != "" {
		n.env = append(n.env, `CAP_ARGS={"portMappings": [{"hostPort": `+port+`, "containerPort": 80, "protocol": "tcp"}]}`)
	}
	return n
}

// TestUpgrade attaches containers by an earlier build. Today's build then checks, repairs, deletes
// and collects these containers, and attaches another one beside them.
func TestUpgrade(t *testing.T) {
	eachOlder(t, anyBuild, func(t *testing.T, o older, dir string) {
		conf := o.conf()
		n := newNode(t, conf, "nft", "legacy")
		outside, c := n.outside(false), n.containers(4)
		before := setuptest.Dump(t)
		port := map[bool]string{true: "8080"}[o.ports]
		n.by(dir, port).must("add", c[0])
		n.by(dir, "").must("add", c[1], c[2])
		serve(t, c[0], 80)
		if !o.leases {
			if err := n.by(programs, "").cnitool("add", c[3]); err == nil || !strings.Contains(err.Error(), "the file is damaged") {
				t.Errorf("ADD with leases that cannot be read: %v", err)
			}
			setuptest.Run(t, "rm", "-r", "/run/ipam-simple") // as the error says
		}
		reached := func(when string) {
			t.Helper()
			for _, ns := range []*setup.Namespace{c[0], c[1]} {
				if !setuptest.Ping(t, ns, "10.88.0.1") || !setuptest.Ping(t, ns, "fd88::1") {
					t.Errorf("%s: a container does not reach its gateway", when)
				}
			}
			if o.ports && ask(t, outside, "tcp", "192.0.2.1", 8080) != "192.0.2.2" {
				t.Errorf("%s: the host port does not answer", when)
			}
		}
		err := n.by(programs, port).cnitool("check", c[0])
		if (err != nil) != (o.lacks != nil) {
			t.Errorf("CHECK: got %v, want errors about %q", err, o.lacks)
		}
		for _, want := range o.lacks {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("CHECK: got %v, want an error about %q", err, want)
			}
		}
		n.by(programs, "").must("add", c[3])
		if held := leases(t); len(held) != 8 {
			t.Errorf("leases %v, want two for each of four containers", held)
		}
		reached("after an ADD")
		if out, status := bvctl(t, "repair"); status != 0 {
			t.Errorf("repair: status %d: %s", status, out)
		}
		if out, status := bvctl(t, "repair"); status != 0 || out != "nothing was missing\n" {
			t.Errorf("the second repair: status %d, %s", status, out)
		}
		reached("after a repair")
		n.by(programs, port).must("check", c[0])
		n.by(programs, "").must("check", c[1:]...)
		n.must("del", c[2])
		var valid []object
		for _, ns := range []*setup.Namespace{c[0], c[3]} {
			valid = append(valid, object{"containerID": containerID(ns.Path), "ifname": "eth0"})
		}
		call{verb: "GC", conf: conf.with(object{"cni.dev/valid-attachments": valid})}.run(t).ok(t)
		if held := leases(t); len(held) != 4 {
			t.Errorf("leases after GC: %v, want two of c1 and two of c4", held)
		}
		n.by(programs, port).must("del", c[0])
		n.by(programs, "").must("del", c[3])
		setuptest.Same(t, before, "DEL left traces")
		noLeases(t)
	})
}

// TestMixedBuilds calls an earlier build and today's build at random. Calls of the earlier build may
// fail, for example because today's build has converted the store, but must not make a call of
// today's build fail afterwards. With host-local, both builds can always read the leases.
func TestMixedBuilds(t *testing.T) {
	olderFolder(t) // skips the whole test, so no part of it counts as passed
	t.Run("ipam-simple", func(t *testing.T) {
		mixBuilds(t, dual["ipam"], func(o older) bool { return o.leases })
	})
	t.Run("host-local", func(t *testing.T) {
		mixBuilds(t, dual["ipam"].(object).with(object{"type": "host-local"}), anyBuild)
	})
}

// mixBuilds makes the calls of TestMixedBuilds for each earlier build that the function usable
// accepts. The parameter ipam is the key "ipam" of the network.
func mixBuilds(t *testing.T, ipam any, usable func(older) bool) {
	t.Helper()
	eachOlder(t, usable, func(t *testing.T, o older, dir string) {
		n := newNode(t, o.conf().with(object{"ipam": ipam}), "nft")
		m := mixed{node: n, ipam: ipam, containers: n.containers(4), attached: map[int]bool{}}
		before := setuptest.Dump(t)
		random := rand.New(rand.NewPCG(1, 2))
		for step := range 30 {
			i, ours := random.IntN(len(m.containers)), random.IntN(2) == 0
			verb := map[bool]string{true: "del", false: "add"}[m.attached[i]]
			plugins := map[bool]string{true: programs, false: dir}[ours]
			if random.IntN(6) == 0 {
				verb = "gc"
			}
			when := fmt.Sprintf("step %d, %s of container %d by %s", step, verb, i+1, plugins)
			err := m.call(plugins, verb, i)
			switch {
			case err != nil && ours:
				t.Fatalf("%s: %v", when, err)
			case err == nil && verb != "gc":
				m.attached[i] = verb == "add"
			case verb != "gc":
				n.by(programs, m.hostPort(i)).must("del", m.containers[i])
				m.attached[i] = false
			}
			if random.IntN(6) == 0 {
				m.check(when)
			}
		}
		m.check("at the end")
		for i := range m.containers {
			n.by(programs, m.hostPort(i)).must("del", m.containers[i])
		}
		setuptest.Same(t, before, "DEL left traces")
		noLeases(t)
	})
}

// mixed is a host on which two builds are called.
type mixed struct {
	*node
	containers []*setup.Namespace
	attached   map[int]bool
	ipam       any // the key "ipam" of the network
}

// hostPort returns the host port of a container, or "" for none.
func (m mixed) hostPort(i int) string { return map[bool]string{true: fmt.Sprint(8080 + i)}[i < 2] }

// call calls the plugins in a folder: GC with all attached containers as valid, or another verb for
// one container.
func (m mixed) call(dir, verb string, i int) error {
	m.t.Helper()
	if verb != "gc" {
		return m.by(dir, m.hostPort(i)).cnitool(verb, m.containers[i])
	}
	valid := []object{}
	for i, there := range m.attached {
		if there {
			valid = append(valid, object{"containerID": containerID(m.containers[i].Path), "ifname": "eth0"})
		}
	}
	program, err := filepath.Rel(programs, filepath.Join(dir, "bridgeveth"))
	if err != nil {
		m.t.Fatal(err)
	}
	gc := call{verb: "GC", program: program, path: dir + ":" + programs, conf: dual.with(object{"ipam": m.ipam, "cni.dev/valid-attachments": valid})}
	if a := gc.run(m.t); a.err != nil {
		return fmt.Errorf("%w: %s", a.err, a.stdout)
	}
	return nil
}

// check repairs the host. Then each attached container must pass CHECK and reach its gateway, and no
// address may be leased twice.
func (m mixed) check(when string) {
	m.t.Helper()
	if out, status := bvctl(m.t, "repair"); status != 0 {
		m.t.Errorf("%s: repair: status %d: %s", when, status, out)
	}
	for i, there := range m.attached {
		if !there {
			continue
		}
		m.by(programs, m.hostPort(i)).must("check", m.containers[i])
		if !setuptest.Ping(m.t, m.containers[i], "10.88.0.1") {
			m.t.Errorf("%s: container %d does not reach its gateway", when, i+1)
		}
	}
	var all []string
	for _, l := range leases(m.t) {
		_, address, _ := strings.Cut(l, " ")
		all = append(all, address)
	}
	slices.Sort(all)
	if len(slices.Compact(slices.Clone(all))) != len(all) {
		m.t.Errorf("%s: an address is leased twice: %v", when, all)
	}
}

// TestLaterBuild marks a link or a table as later builds mark a new format. It checks that today's
// build then refuses to touch it, and that a call for another container still works if it can.
func TestLaterBuild(t *testing.T) {
	t.Parallel()
	conf := everything.with(object{"runtimeConfig": object{}})
	port, bridge, table := "link "+portOf, "link br0", "nftables table bridgeveth"
	for _, tt := range []struct {
		name, mark string
		refused    map[string]string // what the error names, by the verb and the container's number
		works      []string
	}{
		{
			"bridge port", "ip link set " + portOf + " alias bridgeveth.2/net/c1/eth0",
			map[string]string{"ADD 1": port, "CHECK 1": port, "DEL 1": port, "GC 0": port}, []string{"ADD 3", "DEL 3", "DEL 2"},
		},
		{
			"bridge", "ip link set br0 alias bridgeveth.2",
			map[string]string{"ADD 3": bridge, "CHECK 1": bridge, "DEL 1": "link number", "GC 0": bridge}, nil,
		},
		{
			"table", `nft 'add chain ip bridgeveth format; add rule ip bridgeveth format counter comment "2"'`,
			map[string]string{"ADD 3": table, "CHECK 1": table}, []string{"DEL 2"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newNode(t, conf, "nft").containers(3)
			first := on("ADD", 1, conf).run(t).ok(t)
			on("ADD", 2, conf).run(t).ok(t)
			setuptest.Run(t, "sh", "-ec", tt.mark)
			before, held := setuptest.Dump(t), leases(t)
			do := func(what string) answer {
				verb, number, _ := strings.Cut(what, " ")
				switch verb {
				case "CHECK":
					return on(verb, 1, checking(conf, first)).run(t)
				case "GC":
					return call{verb: verb, conf: conf.with(object{"cni.dev/valid-attachments": []object{}})}.run(t)
				}
				return on(verb, int(number[0]-'0'), conf).run(t)
			}
			for what, want := range tt.refused {
				code := map[bool]uint{true: 103, false: 101}[strings.HasPrefix(what, "CHECK")]
				if f := do(what).failed(t); f.Code != code || !strings.Contains(f.Msg, want) || !strings.Contains(f.Msg, "a later release of bridgeveth made it; use that release") {
					t.Errorf("%s: got %+v, want code %d and the name of the %s", what, f, code, want)
				}
				setuptest.Same(t, before, "%s changes something", what)
				if diff := cmp.Diff(held, leases(t)); diff != "" {
					t.Errorf("%s: leases (-before +after):\n%s", what, diff)
				}
			}
			for _, what := range tt.works {
				do(what).ok(t)
			}
		})
	}
}
