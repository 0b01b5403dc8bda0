package agent

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/counters"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/plugins/bridgeveth"
)

// TestMain runs the tests. If the method cni has started this program under the name of the plugin,
// TestMain runs the plugin instead.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == plugin.Bridgeveth {
		os.Exit(plugin.Main(plugin.Bridgeveth, "test", bridgeveth.Verbs()))
	}
	os.Exit(m.Run())
}

// cni calls the plugin for a pod, as a runtime does. It passes the conflist that the agent has
// written, and returns the output of the plugin.
func (a *Agent) cni(t *testing.T, verb, pod string) ([]byte, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{plugin.Bridgeveth, plugin.IPAMSimple} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(a.Conflist.Path)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Name    string           `json:"name"`
		Plugins []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	conf := list.Plugins[0]
	conf["name"], conf["cniVersion"] = list.Name, "1.0.0"
	stdin, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(dir, plugin.Bridgeveth))
	cmd.Stdin = strings.NewReader(string(stdin))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+pod, "CNI_NETNS=/run/netns/"+pod, "CNI_IFNAME=eth0", "CNI_PATH="+dir)
	return cmd.Output()
}

// addPod starts a pod and returns its namespace and its address.
func (a *Agent) addPod(t *testing.T, name string) (*setup.Namespace, netip.Addr) {
	t.Helper()
	ns := setuptest.Container(t, name)
	out, err := a.cni(t, "ADD", name)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var result struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatal(err)
	}
	return ns, result.IPs[0].Address.Addr()
}

// TestRangeChanged checks that pods with addresses of the old range still work after the node has
// got a new range, and also after a flush of the ruleset. New pods must get addresses of the new
// range.
func TestRangeChanged(t *testing.T) {
	a, nodes := newAgent(t)
	outside := setuptest.Container(t, "outside") // has no route to the pods, so it sees the node's address as the source
	setuptest.Run(t, "ip", "link", "set", "lan", "netns", "outside")
	setuptest.In(t, outside, "ip", "addr", "add", "172.30.0.1/16", "dev", "lan")
	setuptest.In(t, outside, "ip", "link", "set", "lan", "up")
	checkReady(t, a, 200, "ready\n")
	before, first := a.addPod(t, "before")
	nodes.all[0].Ranges[0] = netip.MustParsePrefix("10.245.0.0/24")
	checkReady(t, a, 200, "ready\n")
	after, second := a.addPod(t, "after")
	if first.String() != "10.244.1.2" || second.String() != "10.245.0.2" {
		t.Errorf("addresses %v and %v", first, second)
	}
	for _, spoil := range []string{"true", "nft flush ruleset"} {
		setuptest.Run(t, "sh", "-c", spoil)
		checkReady(t, a, 200, "ready\n")
		for _, from := range []*setup.Namespace{before, after} {
			for _, to := range []string{first.String(), second.String(), "172.30.0.11", "172.30.0.1"} {
				if !setuptest.Ping(t, from, to) {
					t.Errorf("after %s: %s gets no answer from %s\n%s", spoil, from.Path, to, setuptest.Run(t, "nft", "list", "ruleset"))
				}
			}
		}
	}
	// The pod has ended, but the runtime has not called DEL yet. The agent must not restore the
	// gateway of this pod.
	setuptest.In(t, before, "ip", "link", "del", "eth0")
	setuptest.Run(t, "ip", "addr", "del", "10.244.1.1/24", "dev", "cni0")
	checkReady(t, a, 200, "ready\n")
	if addresses := setuptest.Run(t, "ip", "addr", "show", "cni0"); strings.Contains(addresses, "10.244.1.1") {
		t.Errorf("the gateway of no pod is back:\n%s", addresses)
	}
	for _, pod := range []string{"before", "after"} {
		if out, err := a.cni(t, "DEL", pod); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}

// TestEvents checks that each problem causes one Event, and a second Event only if the problem
// comes back after it was solved.
func TestEvents(t *testing.T) {
	a, nodes := newAgent(t)
	nodes.all[0].Ranges[0] = netip.MustParsePrefix("10.244.1.0/30") // a range with one address besides the gateway
	foreign := filepath.Join(filepath.Dir(a.Conflist.Path), "05-x.conf")
	for _, tt := range []struct{ name, start, end, reason, text string }{
		{"a foreign configuration", "touch " + foreign, "rm " + foreign, "ForeignNetworkConfiguration", "05-x.conf comes before " + a.Conflist.Path},
		{"a chain that denies", "nft 'add table inet other; add chain inet other c { type filter hook forward priority 0; policy drop; }'", "nft delete table inet other",
			"ForwardDenied", "network kubernetes: packets of its containers are dropped by chain inet other c of nf_tables (policy drop)"},
	} {
		checkReady(t, a, 200, "ready\n")
		nodes.events = nil
		for range 2 {
			setuptest.Run(t, "sh", "-c", tt.start)
			a.Look()
			a.Look()
			setuptest.Run(t, "sh", "-c", tt.end)
			a.Look()
		}
		if len(nodes.events) != 2 || !strings.HasPrefix(nodes.events[0], tt.reason+": "+tt.text) || nodes.events[1] != nodes.events[0] {
			t.Errorf("%s: %q", tt.name, nodes.events)
		}
	}
	checkReady(t, a, 200, "ready\n")
	nodes.events = nil
	a.addPod(t, "pod")
	const text = "range 10.244.1.1-10.244.1.2: all addresses are leased (1), so a new pod starts only if its ADD can end a lease"
	checkReady(t, a, 200, "ready\nwarning: "+text)
	checkReady(t, a, 200, "ready\nwarning: "+text)
	if len(nodes.events) != 1 || !strings.HasPrefix(nodes.events[0], "PodRangeExhausted: "+text) {
		t.Errorf("%q", nodes.events)
	}
	if out, err := a.cni(t, "DEL", "pod"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	a.Look()
	if _, body := a.get("/readyz"); body != "ready\n" {
		t.Errorf("after the pod: %s", body)
	}
}

// TestCounted checks the metrics of ADDs that the agent prints. The plugin counts these ADDs:
// several successful ones and a failed one.
func TestCounted(t *testing.T) {
	a, nodes := newAgent(t)
	nodes.all[0].Ranges[0] = netip.MustParsePrefix("10.244.1.0/29")
	checkReady(t, a, 200, "ready\n")
	for _, name := range []string{"a", "b"} {
		a.addPod(t, name)
	}
	if out, err := a.cni(t, "ADD", "gone"); err == nil {
		t.Errorf("ADD without a namespace succeeded: %s", out)
	}
	if out, err := a.cni(t, "DEL", "a"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	_, body := a.get("/metrics")
	for _, want := range []string{
		"# TYPE bridgeveth_add_seconds histogram\n", "bridgeveth_add_seconds_bucket{le=\"25\"} 3\n", "bridgeveth_add_seconds_bucket{le=\"+Inf\"} 3\n",
		"\nbridgeveth_add_seconds_count 3\n", "# TYPE bridgeveth_add_errors_total counter\nbridgeveth_add_errors_total{code=\"8\"} 1\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	if err := a.Remove(); err != nil || exists(t, counters.Path) {
		t.Errorf("%s is left, or %v", counters.Path, err)
	}
}
