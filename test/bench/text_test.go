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

// TestPrint checks the printed form of a report with invented results. The expected form is in a
// file in testdata.
func TestPrint(t *testing.T) {
	rep := &report{
		Kernel: "6.1.0", CPUs: 2, CPU: "Example", Go: "go1.26.0", Iptables: "iptables v1.8.9 (nf_tables)",
		Peers: "github.com/containernetworking/plugins v1.10.0, go1.26.0", Rounds: 1, Seconds: 60,
		Filling: []filling{{System: keyFull, Containers: 1000, Seconds: 2}},
		IPAM:    &ipamReport{EmptyMS: 1, Rows: []ipamRow{{"ipam-simple", 0, 1.5, 1.5, 1}, {withPool, 0, 1.53, 1.5, 1}}},
		Sizes:   []size{{sizeOurs, 6000, 9000}, {sizePeer, 5000, 10000}},
	}
	all := map[member]*lane{}
	for i, s := range scenarios(1, 1000) {
		c := &contest{scenario: s}
		for j, m := range s.members {
			all[m] = &lane{system: findSystem(m.system), node: &node{filters: true}, residents: make([]*guest, m.attached)}
			c.lanes = append(c.lanes, all[m])
			d := time.Duration((i+1)*(j+1)) * time.Millisecond
			one := sample{took: []time.Duration{d}, wall: d, cost: cost{d / 2, int64(100 * (j + 1))}}
			c.record(all[m], map[string]sample{"ADD": one, "CHECK": one, "DEL": one})
		}
		rep.add(c)
	}
	rep.connectivity(all)

	var got bytes.Buffer
	rep.print(&got)
	compareGolden(t, "report.golden", got)
}

// TestPrintPackets checks the printed form of a report on packets with invented results. The
// expected form is in a file in testdata.
func TestPrintPackets(t *testing.T) {
	rep := &report{Kernel: "6.12.0", CPUs: 1, CPU: "Example", Rounds: 1, Seconds: 60, Counted: true}
	for _, rules := range []int{0, usualRules} {
		for i, p := range packetPaths {
			reference := float64(10000 * (i + 1))
			rep.Packets = append(rep.Packets, packetRow{rules, p.name, traffics[0].name, 1, map[string]float64{
				keyChain: reference, keyFull: reference, keyFast: reference * (1.2 + float64(i)/10 + float64(rules)/400),
			}})
		}
	}
	var got bytes.Buffer
	rep.printPackets(&got)
	compareGolden(t, "packets.golden", got)
}

// compareGolden compares a text with a file in testdata. With the flag -update, it first replaces
// the content of the file by the text.
func compareGolden(t *testing.T, name string, got bytes.Buffer) {
	t.Helper()
	golden := filepath.Join("testdata", name)
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
