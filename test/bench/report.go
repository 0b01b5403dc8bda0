package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// report holds all results of a run.
type report struct {
	Kernel   string         `json:"kernel"`
	CPUs     int            `json:"cpus"`
	CPU      string         `json:"cpu"`
	Go       string         `json:"go"` // release that built this program
	Iptables string         `json:"iptables"`
	Ours     string         `json:"bridgeveth"` // "" if not built
	Peers    string         `json:"reference"`
	Rounds   int            `json:"rounds"`
	Seconds  float64        `json:"seconds"` // of the whole run
	Filling  []filling      `json:"filling"`
	Tables   []table        `json:"tables"`
	Pings    []connectivity `json:"connectivity"`
	Sizes    []size         `json:"sizes"`
	Paths    []pathRow      `json:"paths"`
	IPAM     *ipamReport    `json:"ipam,omitempty"`
	Commands []commandRow   `json:"commands,omitempty"`
	Packets  []packetRow    `json:"packets,omitempty"`
	Counted  bool           `json:"counted,omitempty"` // the clock counts instructions: see hack/vm.sh
}

// filling holds how long it took to attach many containers to a system's bridge.
type filling struct {
	System     string  `json:"system"`
	Containers int     `json:"containers"`
	Seconds    float64 `json:"seconds"`
}

// table holds the results of one operation in one scenario.
type table struct {
	Operation string `json:"operation"`
	Scenario  string `json:"scenario"`
	Rows      []row  `json:"rows"`
}

// row is the line of one system in a table. A ratio is 0 if one of its two systems was not
// measured.
type row struct {
	System   string `json:"system"`
	Attached int    `json:"attached"` // before the measurement
	figures
	ToPlain    float64 `json:"medianToPlain,omitempty"`
	ToChain    float64 `json:"medianToChain,omitempty"`
	CPUToPlain float64 `json:"cpuToPlain,omitempty"`
}

// connectivity holds whether the containers on one bridge of a system reach each other.
type connectivity struct {
	System string `json:"system"`
	Passes bool   `json:"passes"`
}

// newReport returns a report that describes the machine and the programs, and has no results yet.
func newReport(opts options) (*report, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, fmt.Errorf("read kernel release: %w", err)
	}
	iptables, err := exec.Command("iptables", "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("iptables --version: %w", err)
	}
	peers, err := programVersion(filepath.Join(opts.peers, "bridge"))
	if err != nil {
		return nil, err
	}
	ours, err := programVersion(filepath.Join(opts.bin, "bridgeveth"))
	if err != nil {
		ours = "" // field.lane reports a missing plugin if it is needed
	}
	return &report{
		Kernel: unix.ByteSliceToString(uts.Release[:]), CPUs: runtime.NumCPU(), CPU: cpuModel(),
		Go: runtime.Version(), Iptables: strings.TrimSpace(string(iptables)),
		Ours: ours, Peers: peers, Rounds: opts.rounds,
	}, nil
}

// cpuModel returns the processor's name, or "" if /proc/cpuinfo has none.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "" // the heading then has no processor
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, " \t:\n")
		}
	}
	return ""
}

// fill attaches containers until the lane's bridge has the given number of them. It adds to the
// report how long this took.
func (r *report) fill(l *lane, attached int) error {
	took, err := l.fill(attached)
	if err != nil {
		return err
	}
	if attached >= leastFilling {
		r.Filling = append(r.Filling, filling{System: l.key, Containers: attached, Seconds: took.Seconds()})
		fmt.Fprintf(os.Stderr, "%-16s %d containers attached in %.1f s\n", l.key, attached, took.Seconds())
	}
	return nil
}

// leastFilling is a number of containers. If fewer containers are attached, the report omits the
// time that this takes.
const leastFilling = 10

// add adds the tables of a scenario to the report.
func (r *report) add(of *contest) {
	for _, operation := range operations {
		r.Tables = append(r.Tables, of.table(operation))
	}
}

// table returns the results of one operation in the scenario.
func (r *contest) table(operation string) table {
	t := table{Operation: operation, Scenario: r.name}
	for _, l := range r.lanes {
		if s := r.samples[operation][l]; s != nil && l.err == nil {
			t.Rows = append(t.Rows, row{System: l.key, Attached: len(l.residents), figures: s.figures()})
		}
	}
	plain, chain := t.row(keyPlain), t.row(keyChain)
	for i := range t.Rows {
		r := &t.Rows[i]
		if plain != nil {
			r.ToPlain, r.CPUToPlain = r.MedianMS/plain.MedianMS, r.CPUMS/plain.CPUMS
		}
		if chain != nil {
			r.ToChain = r.MedianMS / chain.MedianMS
		}
	}
	return t
}

// row returns the first line of a system in the table, or nil.
func (t *table) row(key string) *row {
	for i := range t.Rows {
		if t.Rows[i].System == key {
			return &t.Rows[i]
		}
	}
	return nil
}

// connectivity adds to the report whether the containers on one bridge reach each other. It adds
// the expected result of each lane (a system on its own node). If the pings had another result, the
// lane has an error, and connectivity omits this lane.
func (r *report) connectivity(lanes map[member]*lane) {
	for _, s := range systems {
		if l := lanes[member{s.key, steady}]; l != nil && l.err == nil {
			r.Pings = append(r.Pings, connectivity{System: l.key, Passes: l.opens || !l.node.filters})
		}
	}
}

// writeJSON writes the report as JSON to a file.
func (r *report) writeJSON(path string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
