package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// print writes the report as text.
func (r *report) print(w io.Writer) {
	r.printHeading(w, "ADD and DEL through libcni", systems)
	for i := range r.Tables {
		r.Tables[i].print(w)
	}
	r.printFilling(w)
	r.printPings(w)
	r.printPaths(w)
	r.printSizes(w)
	if r.IPAM != nil {
		r.IPAM.print(w)
	}
	r.printCommands(w)
	r.printTargets(w, targets)
}

// printHeading writes what was measured: the machine and the programs.
func (r *report) printHeading(w io.Writer, what string, systems []system) {
	fmt.Fprintf(w, "%s, %d rounds in turns, %.0f s\n\n", what, r.Rounds, r.Seconds)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "kernel\t%s, %d CPUs (%s)\n", r.Kernel, r.CPUs, r.CPU)
	fmt.Fprintf(tw, "this program\t%s, %s\n", r.Go, r.Iptables)
	fmt.Fprintf(tw, "our plugins\t%s\n", choose(r.Ours != "", r.Ours, "not built"))
	fmt.Fprintf(tw, "their plugins\t%s\n\n", r.Peers)
	for i := range systems {
		fmt.Fprintf(tw, "%s\t%s\n", systems[i].key, systems[i].title)
	}
	_ = tw.Flush() // a failure could not be printed either
}

// print writes the table as text. A column such as "median/plain" has the median of the row's
// system divided by the median of the system "plain".
func (t *table) print(w io.Writer) {
	if len(t.Rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s, %s (%d each)\n", t.Operation, t.Scenario, t.Rows[0].Count)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "system\tattached\tmedian ms\tp99 ms\tCPU ms\tfaults\tper second\tmedian/plain\tmedian/chain\tCPU/plain\t")
	for _, r := range t.Rows {
		fmt.Fprintf(tw, "%s\t%d\t%.2f\t%.1f\t%.2f\t%.0f\t%.1f\t%s\t%s\t%s\t\n", r.System, r.Attached, r.MedianMS, r.P99MS, r.CPUMS, r.Faults,
			r.PerSecond, ratio(r.ToPlain), ratio(r.ToChain), ratio(r.CPUToPlain))
	}
	_ = tw.Flush() // a failure could not be printed either
}

// ratio returns a ratio as text, or "-" for a ratio of 0, which was not measured.
func ratio(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", v)
}

// printFilling writes how long it took to attach many containers.
func (r *report) printFilling(w io.Writer) {
	if len(r.Filling) == 0 {
		return
	}
	fmt.Fprintf(w, "\nfilling the bridge, %d ADDs at a time\n", attachers)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "system\tcontainers\tseconds\tper second\t")
	for _, f := range r.Filling {
		fmt.Fprintf(tw, "%s\t%d\t%.1f\t%.1f\t\n", f.System, f.Containers, f.Seconds, float64(f.Containers)/f.Seconds)
	}
	_ = tw.Flush() // a failure could not be printed either
}

// printPings writes for each system whether the containers on one bridge reach each other.
func (r *report) printPings(w io.Writer) {
	fmt.Fprint(w, "\nping from container to container on one bridge, FORWARD policy DROP"+
		" (container to gateway passes everywhere)\n")
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range r.Pings {
		fmt.Fprintf(tw, "%s\t%s\n", p.System, choose(p.Passes, "passes", "blocked, as expected: nothing here opens FORWARD"))
	}
	_ = tw.Flush() // a failure could not be printed either
}

// printSizes writes the sizes of the plugins.
func (r *report) printSizes(w io.Writer) {
	if len(r.Sizes) == 0 {
		return
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "program\tfile KB\tpeak memory of ADD KB\t")
	for _, s := range r.Sizes {
		fmt.Fprintf(tw, "%s\t%.0f\t%.0f\t\n", s.Plugin, s.BinaryKB, s.MemoryKB)
	}
	_ = tw.Flush() // a failure could not be printed either
}
