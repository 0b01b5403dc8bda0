package metrics

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// metric is one metric of the output.
type metric struct {
	name, kind, help string
	labels           []string
	samples          map[string]uint64 // by labels, as the output prints them
}

// The states of attachments and leases are those of "bvctl inspect" and "bvctl leases".
const states = "the states are those of bvctl "

// newTable returns all metrics, without samples. docs/metrics.md has the same table.
func newTable() []*metric {
	return []*metric{
		{name: "bridgeveth_build_info", kind: "gauge", labels: []string{"version"}, help: "1; the label is the version of bvctl"},
		{name: "bridgeveth_attachments", kind: "gauge", labels: []string{"network", "state"}, help: "Interfaces of containers; " + states + "inspect"},
		{name: "bridgeveth_bridge_ports", kind: "gauge", labels: []string{"bridge"}, help: "Ports of the bridge, including those of other programs; a bridge has room for 1023"},
		{name: "bridgeveth_host_ports", kind: "gauge", labels: []string{"network", "protocol"}, help: "Host ports of containers"},
		{name: "bridgeveth_leases", kind: "gauge", labels: []string{"network", "state"}, help: "Leases; " + states + "leases"},
		{name: "bridgeveth_range_addresses", kind: "gauge", labels: []string{"network", "range", "family"}, help: "Addresses that the range gives out"},
		{name: "bridgeveth_range_leased_addresses", kind: "gauge", labels: []string{"network", "range", "family"}, help: "Addresses of the range that are leased"},
		{name: "bridgeveth_pool_blocks", kind: "gauge", labels: []string{"network"}, help: "Blocks of a shared pool that this host may lease addresses from"},
		{name: "bridgeveth_pool_free_addresses", kind: "gauge", labels: []string{"network"}, help: "Free addresses in these blocks; of several sets of ranges, the one with the fewest counts"},
		{name: "bridgeveth_pool_etcd_silence_seconds", kind: "gauge", labels: []string{"network"}, help: "Seconds since this host has last heard from etcd about the pool, or since the boot"},
		{name: "bridgeveth_missing_parts", kind: "gauge", labels: []string{"network", "scope"}, help: "Rules and settings that bvctl repair would restore: parts of the network, or bridge ports with a difference"},
		{name: "bridgeveth_dropped_packets_total", kind: "counter", labels: []string{"family", "bridge", "rule"}, help: "Packets that a rule of bridgeveth has dropped"},
		{name: "bridgeveth_dropped_bytes_total", kind: "counter", labels: []string{"family", "bridge", "rule"}, help: "Bytes of these packets"},
		{name: "bridgeveth_read_errors", kind: "gauge", help: "Errors while bvctl read this host; bvctl metrics prints them on standard error"},
	}
}

// table is a list of metrics.
type table []*metric

// add adds a number to the sample of a metric that has these values of the labels.
func (t table) add(name string, number uint64, values ...string) {
	m := t[slices.IndexFunc(t, func(m *metric) bool { return m.name == name })]
	var pairs []string
	for i, value := range values {
		pairs = append(pairs, m.labels[i]+`="`+escaper.Replace(strings.ToValidUTF8(value, "\uFFFD"))+`"`)
	}
	labels := ""
	if len(pairs) > 0 {
		labels = "{" + strings.Join(pairs, ",") + "}"
	}
	if m.samples == nil {
		m.samples = map[string]uint64{}
	}
	m.samples[labels] += number
}

// escaper escapes the value of a label.
var escaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// print prints the metrics in Prometheus' text format, version 0.0.4. It prints no metric without
// samples.
func (t table) print(w io.Writer) error {
	for _, m := range t {
		if len(m.samples) == 0 {
			continue
		}
		text := fmt.Sprintf("# HELP %[1]s %[2]s\n# TYPE %[1]s %[3]s\n", m.name, m.help, m.kind)
		for _, labels := range slices.Sorted(maps.Keys(m.samples)) {
			text += fmt.Sprintf("%s%s %d\n", m.name, labels, m.samples[labels])
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}
