package cnitool

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/attack"
)

// metrics runs bvctl metrics and parses its output by Prometheus' library. The key of the result is
// a metric with its labels, such as NAME{a=1 b=2}.
func metrics(t testing.TB, args ...string) (samples map[string]float64, text string) {
	t.Helper()
	text, status := bvctl(t, append([]string{"metrics"}, args...)...)
	if status != 0 {
		t.Fatalf("status %d: %s", status, text)
	}
	return parseMetrics(t, text), text
}

func parseMetrics(t testing.TB, text string) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	samples := map[string]float64{}
	for name, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			value := m.GetGauge().GetValue()
			if f.GetType() == dto.MetricType_COUNTER {
				value = m.GetCounter().GetValue()
			}
			samples[name+"{"+strings.Join(labels, " ")+"}"] = value
		}
	}
	return samples
}

// TestMetrics compares the output of bvctl metrics with a host that has a network of each kind, and
// then with the same host after damages.
func TestMetrics(t *testing.T) {
	t.Parallel()
	conf := dual.with(object{"ipspoofchk": true, "ingressPolicy": "isolated", "capabilities": object{"portMappings": true}})
	n := newNode(t, conf, "nft")
	c := n.containers(3)
	n.env = []string{`CAP_ARGS={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}, {"hostPort": 53, "containerPort": 53, "protocol": "udp"}]}`}
	n.must("add", c[0])
	n.env = nil
	n.must("add", c[1:]...)
	setuptest.Run(t, "ip", "link", "add", "other", "master", "br0", "type", "veth", "peer", "name", "peer")
	compare := func(when string, want map[string]float64) {
		t.Helper()
		got, text := metrics(t)
		for sample, value := range want {
			if found, ok := got[sample]; !ok || found != value {
				t.Errorf("%s: %s is %v (printed: %v), want %v", when, sample, found, ok, value)
			}
		}
		if t.Failed() {
			t.Log(text)
		}
	}
	compare("all is well", map[string]float64{
		"bridgeveth_attachments{network=net state=forwarding}":                                   3,
		"bridgeveth_attachments{network=net state=down}":                                         0,
		"bridgeveth_bridge_ports{bridge=br0}":                                                    4,
		"bridgeveth_host_ports{network=net protocol=tcp}":                                        1,
		"bridgeveth_host_ports{network=net protocol=udp}":                                        1,
		"bridgeveth_leases{network=net state=attached}":                                          6,
		"bridgeveth_leases{network=net state=gone}":                                              0,
		"bridgeveth_range_addresses{network=net range=10.88.0.1-10.88.0.254 family=ipv4}":        253,
		"bridgeveth_range_leased_addresses{network=net range=10.88.0.1-10.88.0.254 family=ipv4}": 3,
		"bridgeveth_missing_parts{network=net scope=network}":                                    0,
		"bridgeveth_missing_parts{network=net scope=port}":                                       0,
		"bridgeveth_dropped_packets_total{family=bridge bridge= rule=IPv4 source}":               0,
		"bridgeveth_dropped_packets_total{family=ip bridge=br0 rule=ingress isolated}":           0,
		"bridgeveth_read_errors{}":                                                               0,
	})
	const pings = 3
	setuptest.In(t, c[0], "ip", "address", "add", "10.88.0.77/24", "dev", "eth0")
	setuptest.In(t, c[0], "ip", "neighbour", "add", "10.88.0.1", "lladdr", attack.MACOf(t, n.Namespace, "br0").String(), "dev", "eth0")
	setuptest.In(t, c[0], "sh", "-c", fmt.Sprintf("ping -q -c %d -i 0.2 -W 0.2 -I 10.88.0.77 10.88.0.1 || true", pings))
	compare("the guard has dropped packets", map[string]float64{
		"bridgeveth_dropped_packets_total{family=bridge bridge= rule=IPv4 source}": pings,
		"bridgeveth_dropped_bytes_total{family=bridge bridge= rule=IPv4 source}":   pings * 84,
	})
	setuptest.Run(t, "sh", "-c", `nft flush chain ip bridgeveth postrouting; nft flush chain ip6 bridgeveth postrouting
		nft flush map ip bridgeveth ports; ip netns exec c2 ip link delete eth0`)
	compare("after damages", map[string]float64{
		"bridgeveth_attachments{network=net state=forwarding}": 2,
		"bridgeveth_attachments{network=net state=missing}":    1,
		"bridgeveth_missing_parts{network=net scope=network}":  4, // masquerade and host ports of both families
		"bridgeveth_missing_parts{network=net scope=port}":     1,
		"bridgeveth_read_errors{}":                             0,
	})
	if _, status := bvctl(t, "repair"); status != 0 {
		t.Errorf("repair: status %d", status)
	}
	compare("after the repair", map[string]float64{
		"bridgeveth_missing_parts{network=net scope=network}": 0,
		"bridgeveth_missing_parts{network=net scope=port}":    0,
	})
	setuptest.Run(t, "sh", "-c", "echo { >/var/lib/cni/results/net-broken-eth0")
	a := bvctlCall("metrics").run(t).ok(t)
	if got := parseMetrics(t, string(a.stdout)); got["bridgeveth_read_errors{}"] != 1 || strings.Count(string(a.stderr), "net-broken-eth0") != 1 {
		t.Errorf("%v read errors, want 1: %s", got["bridgeveth_read_errors{}"], a.stderr)
	}
}

// TestMetricsFile checks that the file of bvctl metrics --output is complete at any time and readable
// for node_exporter, and that the next call replaces what a killed call has left.
func TestMetricsFile(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	n.must("add", n.containers(1)...)
	dir := t.TempDir()
	file, victim := filepath.Join(dir, "bridgeveth.prom"), filepath.Join(dir, "victim")
	setuptest.Run(t, "sh", "-c", "echo kept >"+victim+"; ln -s victim "+file+".new")
	if _, text := metrics(t, "--output", file); text != "" {
		t.Errorf("standard output: %s", text)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := parseMetrics(t, string(content)); got["bridgeveth_attachments{network=net state=forwarding}"] != 1 {
		t.Errorf("%s", content)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	if out := setuptest.Run(t, "sh", "-c", "cat "+victim+"; ls "+dir); out != "kept\nbridgeveth.prom\nvictim\n" {
		t.Errorf("victim, then the folder: %q", out)
	}
	if a := bvctlCall("metrics", "--output", dir+"/none/x.prom").run(t); a.err == nil || !strings.HasPrefix(string(a.stderr), "bvctl: --output: open ") {
		t.Errorf("%v: %s", a.err, a.stderr)
	}
	if promtool, err := exec.LookPath("promtool"); err == nil {
		setuptest.Run(t, "sh", "-c", promtool+" check metrics <"+file)
	}
}
