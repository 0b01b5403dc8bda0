package agent

import (
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/bridgeveth/bridgeveth/pkg/counters"
)

// metrics prints the metrics in Prometheus' text format, version 0.0.4.
func (s *status) metrics(w http.ResponseWriter, _ *http.Request) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	ready, tunnelled := 0, 0
	if s.looks > 0 && len(s.last.reasons) == 0 {
		ready = 1
	}
	if t := s.last.state.Tunnel; t != nil {
		tunnelled = len(t.Peers)
	}
	for _, m := range []struct {
		name, kind, help string
		value            any
	}{
		{"ready", "gauge", "1 if the node is ready for pods, 0 if not: /readyz says why", ready},
		{"nodes", "gauge", "Node objects in the cluster, as last read", len(s.last.nodes)},
		{"routes", "gauge", "Routes to the pod ranges of other nodes that this node needs", len(s.last.state.Routes)},
		{"tunnel_peers", "gauge", "Nodes that are reached through the VXLAN device", tunnelled},
		{"pod_mtu_bytes", "gauge", "MTU of new pods", s.last.state.MTU},
		{"warnings", "gauge", "Warnings on /readyz", len(s.last.warnings)},
		{"changes_total", "counter", "Changes made to routes, links, entries and files", s.changes},
		{"compare_seconds_sum", "counter", "Time spent in comparisons, in seconds", s.seconds},
		{"compare_seconds_count", "counter", "Comparisons of the wanted state with the present one", s.looks},
	} {
		name := "bridgeveth_node_" + m.name
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %v\n", name, m.help, name, m.kind, name, m.value)
	}
	addMetrics(w)
}

// addMetrics prints the metrics of ADDs from the counters that the plugin writes. If there are no
// counters, it prints nothing.
func addMetrics(w io.Writer) {
	counts, err := counters.Read(counters.Path)
	if err != nil {
		return // the next comparison reports this error
	}
	const seconds, errs = "bridgeveth_add_seconds", "bridgeveth_add_errors_total"
	fmt.Fprintf(w, "# HELP %[1]s Duration of ADDs, also of those that failed\n# TYPE %[1]s histogram\n", seconds)
	total := uint64(0)
	for i, n := range counts.Classes {
		total += n
		bound := "+Inf"
		if i < len(counters.Bounds) {
			bound = strconv.FormatFloat(counters.Bounds[i].Seconds(), 'g', -1, 64)
		}
		fmt.Fprintf(w, "%s_bucket{le=%q} %d\n", seconds, bound, total)
	}
	fmt.Fprintf(w, "%[1]s_sum %[2]v\n%[1]s_count %[3]d\n", seconds, counts.Sum.Seconds(), total)
	fmt.Fprintf(w, "# HELP %[1]s ADDs that failed, by error code\n# TYPE %[1]s counter\n", errs)
	for code, n := range counts.Failed {
		if n == 0 {
			continue
		}
		label := strconv.Itoa(code)
		if code == 0 {
			label = "other"
		}
		fmt.Fprintf(w, "%s{code=%q} %d\n", errs, label, n)
	}
}
