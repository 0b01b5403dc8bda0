package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

// TestPrint prints a report whose figures are made up: ADD takes 2, 10 and 40 ms.
func TestPrint(t *testing.T) {
	rep := &report{
		Kernel: "6.1.0", CPUs: 2, CPU: "Example", Go: "go1.26.0", Iptables: "iptables v1.8.9 (nf_tables)",
		Peers: "github.com/containernetworking/plugins v1.9.1, go1.26.0", Rounds: 1, Seconds: 60,
		Filling: []filling{{System: keyFix, From: 0, To: 400, Seconds: 2}},
	}
	var lanes []*lane
	for _, key := range []string{keyFix, keyPlain, keyChain} {
		lanes = append(lanes, &lane{system: findSystem(key), node: &node{filters: true}})
	}
	c := newCase(0, 1, lanes)
	for i, ms := range []time.Duration{2, 10, 40} {
		s := sample{took: []time.Duration{ms * time.Millisecond}, wall: ms * time.Millisecond, cpu: ms * time.Millisecond / 2}
		c.record(lanes[i], s, s)
	}
	rep.add(c)
	rep.connectivity(lanes)

	var got bytes.Buffer
	rep.print(&got)
	golden := filepath.Join("testdata", "report.golden")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
}
