package agent

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/conflist"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

func init() { runtime.LockOSThread() } // tests change the network namespace of their threads

// objects implements Nodes with a list that the test fills.
type objects struct {
	all     []cluster.Node
	trouble string
	events  []string // the Events that the agent has written
	fresh   int      // how often the agent has opened new connections
	cleared int      // how often the agent has set NetworkUnavailable to False
}

func (o *objects) List() ([]cluster.Node, bool)  { return o.all, o.all != nil }
func (o *objects) Trouble() string               { return o.trouble }
func (o *objects) Report(reason, message string) { o.events = append(o.events, reason+": "+message) }
func (o *objects) Reconnect()                    { o.fresh++ }
func (o *objects) ClearNetworkUnavailable(context.Context) error {
	o.all[0].NetworkUnavailable = false
	o.cleared++
	return nil
}

func node(name, internal, podRange string) cluster.Node {
	return cluster.Node{Name: name, Addresses: []netip.Addr{netip.MustParseAddr(internal)}, Ranges: []netip.Prefix{netip.MustParsePrefix(podRange)}}
}

// newAgent returns the agent of a node with the address 172.30.0.11 on link uplink0, in a cluster
// of three nodes.
func newAgent(t testing.TB) (*Agent, *objects) {
	ns := setuptest.EnterHost(t)
	setuptest.Run(t, "ip", "link", "add", "uplink0", "type", "veth", "peer", "name", "lan")
	for _, link := range []string{"uplink0", "lan"} { // the test must not depend on link-local addresses, which the kernel adds some time after the link is up
		setuptest.Run(t, "ip", "link", "set", link, "addrgenmode", "none", "up")
	}
	setuptest.Run(t, "ip", "addr", "add", "172.30.0.11/16", "dev", "uplink0")
	nodes := &objects{all: []cluster.Node{
		node("n1", "172.30.0.11", "10.244.1.0/24"), node("n2", "172.30.0.12", "10.244.2.0/24"), node("n3", "172.31.0.13", "10.244.3.0/24"),
	}}
	return restart(t, &Agent{
		Self: "n1", Settings: cluster.Settings{Routing: cluster.RoutingAuto, VXLANPort: 4789},
		Host:     ns,
		Conflist: conflist.File{Path: filepath.Join(t.TempDir(), "10-bridgeveth.conflist"), Volatile: filepath.Join(t.TempDir(), "conflist")}, Nodes: nodes,
	}), nodes
}

// restart returns a new Agent with the settings of an existing Agent, as after a restart of the
// process.
func restart(t testing.TB, old *Agent) *Agent {
	t.Helper()
	host, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(host.Close)
	return &Agent{
		Self: old.Self, Settings: old.Settings, Base: old.Base, Conflist: old.Conflist, Nodes: old.Nodes, Host: old.Host,
		Kernel: host, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// get sends a request for path, such as /readyz, to the agent and returns its answer.
func (a *Agent) get(path string) (code int, body string) {
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	return w.Code, w.Body.String()
}

// checkReady calls Look once. It fails the test unless /readyz answers with this status code and
// with a text that begins with want.
func checkReady(t *testing.T, a *Agent, code int, want string) {
	t.Helper()
	a.Look()
	if got, body := a.get("/readyz"); got != code || !strings.HasPrefix(body, want) {
		t.Errorf("/readyz: %d %q, want %d %q", got, body, code, want)
	}
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

// TestLast checks that the agent writes the conflist only after it has added the routes.
func TestLast(t *testing.T) {
	a, nodes := newAgent(t)
	if code, body := a.get("/readyz"); code != 503 || body != "not ready: the first comparison has not ended\n" {
		t.Errorf("/readyz: %d %q", code, body)
	}
	all := nodes.all
	nodes.all, nodes.trouble = nil, "connection refused"
	checkReady(t, a, 503, "not ready: waiting for the API server: connection refused\n")
	nodes.all, nodes.trouble = all[1:], ""
	checkReady(t, a, 503, "not ready: node n1: the API server has no Node object n1")
	nodes.all = all
	setuptest.Run(t, "ip", "route", "add", "10.244.2.0/24", "dev", "lan")
	checkReady(t, a, 503, "not ready: add route 10.244.2.0/24 via 172.30.0.12 dev uplink0: another route to this range exists")
	if exists(t, a.Conflist.Path) {
		t.Error("the conflist is there, and a route is not")
	}
	setuptest.Run(t, "ip", "route", "del", "10.244.2.0/24")
	checkReady(t, a, 200, "ready\n")
	text, err := os.ReadFile(a.Conflist.Path)
	for _, want := range []string{`"subnet": "10.244.1.0/24"`, `"mtu": 1450`, `"10.244.2.0/23"`} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("no %s in the conflist (%v):\n%s", want, err, text)
		}
	}
}

// TestStays checks that the agent changes nothing on the node in three cases: nothing has changed
// since the last comparison, the API server does not answer, and the own Node object is deleted.
func TestStays(t *testing.T) {
	a, nodes := newAgent(t)
	checkReady(t, a, 200, "ready\n")
	before := setuptest.Dump(t)
	stat := func() fs.FileInfo {
		t.Helper()
		info, err := os.Stat(a.Conflist.Path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	written, changes := stat(), a.changes
	checkReady(t, a, 200, "ready\n")
	nodes.trouble = "connection refused"
	checkReady(t, a, 200, "ready\nwarning: the API server does not answer; routes and configuration stay as they are: connection refused\n")
	nodes.all, nodes.trouble = nodes.all[1:], ""
	checkReady(t, a, 503, "not ready: node n1: the API server has no Node object n1")
	nodes.all = []cluster.Node{}
	checkReady(t, a, 503, "not ready: node n1: the API server has no Node object n1")
	if now := stat(); !os.SameFile(written, now) || a.changes != changes {
		t.Errorf("%d changes, conflist written again: %v", a.changes-changes, !os.SameFile(written, now))
	}
	setuptest.Same(t, before, "the agent changed something")
}

// TestStart checks what a new agent does with an existing conflist. After a reboot, it removes the
// conflist, unless a flag forbids this. After a mere restart of the agent, it keeps the conflist.
func TestStart(t *testing.T) {
	for _, tt := range []struct {
		name         string
		keep, reboot bool
		want         bool
	}{
		{"reboot", false, true, false},
		{"reboot, kept", true, true, true},
		{"agent restarted", false, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, nodes := newAgent(t)
			if tt.keep {
				a.Conflist.Volatile = ""
			}
			checkReady(t, a, 200, "ready\n")
			if tt.reboot {
				setuptest.Run(t, "ip", "route", "flush", "proto", "97")
				setuptest.Run(t, "ip", "link", "del", cluster.TunnelLink)
			}
			all := nodes.all
			nodes.all = nil // the API server has not answered yet
			a = restart(t, a)
			if err := os.Mkdir(ipam.DefaultDir, 0o755); err != nil { // with the permissions that the kubelet gives to the folder of a volume
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			stop() // after the first comparison
			if err := a.Run(ctx, nil); err != nil {
				t.Fatal(err)
			}
			if got := exists(t, a.Conflist.Path); got != tt.want {
				t.Errorf("the conflist is there: %v, want %v", got, tt.want)
			}
			if info, err := os.Stat(ipam.DefaultDir); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("other users can lock the leases: %v, %v", info, err)
			}
			nodes.all = all
			checkReady(t, a, 200, "ready\n")
			if !exists(t, a.Conflist.Path) {
				t.Error("no conflist")
			}
		})
	}
}

// TestUnderWay checks that a running agent reacts to changes of the node and of the cluster. The
// test has no subtests, because a subtest would run on a thread outside of the test's network
// namespace.
func TestUnderWay(t *testing.T) {
	a, nodes := newAgent(t)
	checkReady(t, a, 200, "ready\n")
	conflistHas := func(want string) {
		t.Helper()
		if text, err := os.ReadFile(a.Conflist.Path); !bytes.Contains(text, []byte(want)) {
			t.Errorf("no %s in the conflist (%v):\n%s", want, err, text)
		}
	}
	route := func(args, want string) {
		t.Helper()
		if got := setuptest.Run(t, "ip", append([]string{"route", "show"}, strings.Fields(args)...)...); strings.Join(strings.Fields(got), " ") != want {
			t.Errorf("route %s: %q, want %q", args, got, want)
		}
	}

	// The MTU of the uplink changes.
	setuptest.Run(t, "ip", "link", "set", "uplink0", "mtu", "9000")
	checkReady(t, a, 200, "ready\n")
	conflistHas(`"mtu": 8950`)

	// The InternalIP and the uplink of the own node change.
	setuptest.Run(t, "ip", "addr", "del", "172.30.0.11/16", "dev", "uplink0")
	setuptest.Run(t, "ip", "addr", "add", "172.31.0.11/24", "dev", "lan")
	if nodes.fresh != 0 {
		t.Error("new connections to the API server without need")
	}
	for range 2 {
		checkReady(t, a, 503, "not ready: node n1: no link of this host has the InternalIP [172.30.0.11]")
	}
	if nodes.fresh != 1 {
		t.Errorf("%d times new connections to the API server, want 1", nodes.fresh)
	}
	nodes.all[0].Addresses[0] = netip.MustParseAddr("172.31.0.11")
	checkReady(t, a, 200, "ready\n")
	route("10.244.3.0/24", "10.244.3.0/24 via 172.31.0.13 dev lan proto 97")
	route("10.244.2.0/24", "10.244.2.0/24 via 10.244.2.0 dev bvx0 proto 97 onlink")

	// The pod range of the own node changes.
	nodes.all[0].Ranges[0] = netip.MustParsePrefix("10.245.0.0/24")
	checkReady(t, a, 200, "ready\n")
	conflistHas(`"subnet": "10.245.0.0/24"`)
	route("root 10.240.0.0/12 proto 97 metric 65535", "unreachable 10.245.0.0/24")

	// The conflist is deleted.
	if err := os.Remove(a.Conflist.Path); err != nil {
		t.Fatal(err)
	}
	checkReady(t, a, 200, "ready\n")
	conflistHas("10.245.0.0/24")

	// Another program writes a conflist.
	foreign := filepath.Join(filepath.Dir(a.Conflist.Path), "05-kindnet.conflist")
	if err := os.WriteFile(foreign, []byte(`{"plugins": [{"type": "ptp", "ipam": {"subnet": "10.9.0.0/24"}}, {"type": "portmap"}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	checkReady(t, a, 503, "not ready: 05-kindnet.conflist comes before "+a.Conflist.Path)
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}

	// An administrator writes a second conflist that uses the pods' bridge.
	hand := filepath.Join(filepath.Dir(a.Conflist.Path), "20-hand.conflist")
	for subnet, want := range map[string]string{
		"10.245.0.0/25": "",
		"10.246.0.0/24": "warning: 20-hand.conflist: range 10.246.0.0/24 is outside spec.podCIDRs [10.245.0.0/24], so other nodes have no route to its pods; remove the file, or change the range\n",
	} {
		if err := os.WriteFile(hand, []byte(`{"plugins": [{"type": "bridgeveth", "ipam": {"subnet": "`+subnet+`"}}]}`), 0o644); err != nil {
			t.Fatal(err)
		}
		a.Look()
		if _, body := a.get("/readyz"); body != "ready\n"+want {
			t.Errorf("%s: %s", subnet, body)
		}
	}
	if err := os.Remove(hand); err != nil {
		t.Fatal(err)
	}

	// An administrator sets a range in the base configuration.
	a.Base = filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(a.Base, []byte(`{"name": "n", "plugins": [{"type": "bridgeveth", "ipam": {"subnet": "10.246.0.0/24"}}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	checkReady(t, a, 503, "not ready: base configuration "+a.Base+": ipam.subnet: 10.246.0.0/24 is the same on every node")

	// The base configuration gets a syntax error.
	if err := os.WriteFile(a.Base, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	nodes.all = nodes.all[:2]
	checkReady(t, a, 503, "not ready: base configuration "+a.Base+": not JSON")
	route("10.244.3.0/24", "") // the agent must restore routes in spite of the mistake
	a.Base = ""
	checkReady(t, a, 200, "ready\n")
}

// TestRunningPods checks, on a node with one pod, the rules and gateways that all pods share on the
// host. The agent must adapt them to changes of the cluster, and restore them after a flush of the
// ruleset.
func TestRunningPods(t *testing.T) {
	a, nodes := newAgent(t)
	checkReady(t, a, 200, "ready\n")
	if rules := setuptest.Run(t, "nft", "list", "ruleset"); rules != "" {
		t.Errorf("rules without a pod:\n%s", rules)
	}
	ranges := nodes.all[0].Ranges[0]
	_, err := a.Host.AttachPort(&setup.Port{
		Attachment: setup.Attachment{Network: "kubernetes", Container: "pod", Interface: "eth0"},
		Container:  setuptest.Container(t, "pod"),
		Network: &setup.Network{
			Bridge: "cni0", IPv4: true, Gateways: []netip.Prefix{netip.MustParsePrefix("10.244.1.1/24")}, Masquerade: []netip.Prefix{ranges},
		},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.244.1.2/24")},
	})
	if err != nil {
		t.Fatal(err)
	}
	nodes.all = append(nodes.all, node("n9", "172.30.0.19", "10.244.9.0/24"))
	for _, spoil := range []string{"true", "nft flush ruleset", "ip addr del 10.244.1.1/24 dev cni0"} {
		setuptest.Run(t, "sh", "-c", spoil)
		checkReady(t, a, 200, "ready\n")
		rules, gateway := setuptest.Run(t, "nft", "list", "ruleset"), setuptest.Run(t, "ip", "addr", "show", "cni0")
		if !strings.Contains(rules, "ip daddr 10.244.9.0/24") || !strings.Contains(rules, "masquerade") || !strings.Contains(gateway, "10.244.1.1/24") {
			t.Errorf("after %s:\n%s\n%s", spoil, rules, gateway)
		}
	}
	changes := a.changes
	if checkReady(t, a, 200, "ready\n"); a.changes != changes {
		t.Errorf("%d changes of what was right", a.changes-changes)
	}
}

// TestRun checks that a running agent reacts to changes of Node objects, and to changes of links,
// routes and rules in the kernel.
func TestRun(t *testing.T) {
	setuptest.InHost(t, func() {
		a, _ := newAgent(t)
		before := setuptest.Dump(t)
		wake := make(chan struct{}, 1)
		ctx, stop := context.WithCancel(t.Context())
		if err := kernel.Watch(ctx, func() {
			select {
			case wake <- struct{}{}:
			default:
			}
		}); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- a.Run(ctx, wake) }()
		await(t, "a route", func() bool { return setuptest.Run(t, "ip", "route", "show", "10.244.2.0/24") != "" })
		setuptest.Run(t, "ip", "route", "flush", "proto", "97")
		await(t, "the route after a flush", func() bool { return setuptest.Run(t, "ip", "route", "show", "10.244.2.0/24") != "" })
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if setuptest.Run(t, "ip", "route", "show", "10.244.2.0/24") == "" {
			t.Error("the route went with the agent")
		}
		if err := a.Remove(); err != nil {
			t.Error(err)
		}
		setuptest.Same(t, before, "Remove left something")
		if exists(t, a.Conflist.Path) {
			t.Error("the conflist is left")
		}
	})
}

// await waits until ok returns true, and fails the test if this takes longer than idle/2. After
// idle, the agent compares even without a wake-up, so a later success would not prove that a
// wake-up came.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(idle / 2); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}

// TestCondition checks when the agent sets the condition NetworkUnavailable to False, after a cloud
// controller has set it to True.
func TestCondition(t *testing.T) {
	a, nodes := newAgent(t)
	checkReady(t, a, 200, "ready\n")
	if nodes.cleared != 0 {
		t.Error("a condition was set that was not there")
	}
	for _, tt := range []struct {
		routing cluster.Routing
		spoil   string
		code    int
		want    int
	}{
		{cluster.RoutingNone, "true", 200, 0}, // with RoutingNone, the agent does not manage the routes
		{cluster.RoutingDirect, "ip route replace 10.244.2.0/24 dev lan", 503, 0},
		{cluster.RoutingDirect, "ip route del 10.244.2.0/24", 200, 1},
	} {
		a.Settings.Routing, nodes.all[0].NetworkUnavailable = tt.routing, true
		setuptest.Run(t, "sh", "-c", tt.spoil)
		a.Look()
		if code, body := a.get("/readyz"); code != tt.code || nodes.cleared != tt.want {
			t.Errorf("--routing=%s, %s: cleared %d times, want %d: %s", tt.routing, tt.spoil, nodes.cleared, tt.want, body)
		}
	}
	if a.Look(); nodes.cleared != 1 {
		t.Error("cleared again")
	}
}

// TestNode checks the text that "bvctl node" prints.
func TestNode(t *testing.T) {
	a, nodes := newAgent(t)
	nodes.all = append(nodes.all, cluster.Node{Name: "n5"}, cluster.Node{Name: "n4", Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.4.0/24")}})
	if code, body := a.get("/node"); code != 503 || !strings.HasPrefix(body, "node n1, MTU of new pods 0\nnot ready: the first comparison has not ended\n") {
		t.Errorf("%d %s", code, body)
	}
	checkReady(t, a, 200, "ready\n")
	a.addPod(t, "old")
	nodes.all[0].Ranges = []netip.Prefix{netip.MustParsePrefix("10.245.0.0/24"), netip.MustParsePrefix("fd00:1::/64")}
	checkReady(t, a, 200, "ready\n")
	a.addPod(t, "new")
	checkReady(t, a, 200, "ready\n")
	want := `node n1, MTU of new pods 1450
ready
warning: node n4: status.addresses has no InternalIP; its pods are not reachable until its kubelet reports one

RANGE                    LEASED
10.245.0.0/24            1 of 253
fd00:1::/64              1 of 1.8e+19
10.244.1.1-10.244.1.254  1 of 253, outside spec.podCIDRs

PEER  INTERNAL IP  RANGE          REACHED  ROUTE
n2    172.30.0.12  10.244.2.0/24  direct   via 172.30.0.12 dev uplink0
n3    172.31.0.13  10.244.3.0/24  tunnel   via 10.244.3.0 dev bvx0
n4    -            10.244.4.0/24  no       -
n5    -            -              no       -
`
	code, body := a.get("/node")
	if diff := cmp.Diff(want, body); code != 200 || diff != "" {
		t.Errorf("%d, -want +got\n%s", code, diff)
	}
	a.Settings.Routing = cluster.RoutingNone
	a.Look()
	if _, body := a.get("/node"); !strings.Contains(body, "n2    172.30.0.12  10.244.2.0/24  fabric   -\n") {
		t.Errorf("--routing none:\n%s", body)
	}
}

func TestSeen(t *testing.T) {
	a, nodes := newAgent(t)
	nodes.all = append(nodes.all, cluster.Node{Name: "n4", Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.4.0/24")}})
	checkReady(t, a, 200, "ready\nwarning: node n4: status.addresses has no InternalIP")
	if code, body := a.get("/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	_, body := a.get("/metrics")
	var got []string
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "#") && !strings.Contains(line, "seconds") {
			got = append(got, strings.TrimPrefix(strings.TrimSpace(line), "bridgeveth_node_"))
		}
	}
	want := []string{"ready 1", "nodes 4", "routes 2", "tunnel_peers 1", "pod_mtu_bytes 1450", "warnings 1", "changes_total 9"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s\n%s", diff, body)
	}
	a.last.at = time.Now().Add(-stuck - time.Second)
	if code, _ := a.get("/healthz"); code != 503 {
		t.Errorf("/healthz of an agent that is stuck: %d", code)
	}
}
