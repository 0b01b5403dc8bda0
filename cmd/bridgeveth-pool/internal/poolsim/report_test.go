package poolsim

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Numbers of the report.
const (
	waitedUnheard = "etcd was not heard since the boot"
	waitedDry     = "all addresses of the host's blocks were leased"
	refused       = "ADD refused"
	failed        = "failed: "
)

// whereabouts is the number of addresses a second that the plugin whereabouts hands out in a large
// cluster: docs/pool.md.
const whereabouts = 0.4

// measurements are the times and numbers of a run.
type measurements struct {
	claimed, traffic       time.Duration
	rushRate, trafficAdded float64
	requests, claims, log  float64 // of the traffic
	size                   float64 // of etcd's database, in bytes
	blocks, owned          int
}

// row writes a row of the table. The target is a text, and met says whether the run meets the target.
func row(out *strings.Builder, what, value, target string, met bool) {
	result := "-"
	if target == "" {
		target = "-"
	} else if result = "met"; !met {
		result = "missed"
	}
	fmt.Fprintf(out, "| %s | %s | %s | %s |\n", what, value, target, result)
}

// report prints the result of a run without problems as Markdown, and writes it to a file unless the name
// of the file is empty.
func (r *run) report(file string) {
	var text strings.Builder
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		r.t.Error(err)
	}
	etcd, err := r.admin.Status(context.Background(), r.cluster.Endpoints[0])
	if err != nil {
		r.t.Fatal(err)
	}
	fmt.Fprintf(&text, "Run of %s: seed %d, %d hosts, %d addresses, %d processors, %.0f seconds. Linux %s, etcd %s with %d members.\n\n",
		r.began.UTC().Format("2006-01-02"), r.seed, r.options.hosts, r.added.Load(), runtime.NumCPU(), time.Since(r.began).Seconds(),
		unix.ByteSliceToString(kernel.Release[:]), etcd.Version, members)
	r.figures(&text)
	fmt.Fprint(&text, "\n| fault | cases |\n| --- | --- |\n")
	for _, fault := range []string{memberKilled, cutOff, killed, crashed, gone, jumped} {
		fmt.Fprintf(&text, "| %s | %d |\n", fault, r.counts[fault])
	}
	fmt.Fprint(&text, "\n| claim that failed because | cases |\n| --- | --- |\n")
	for _, what := range slices.Sorted(maps.Keys(r.counts)) {
		if reason, is := strings.CutPrefix(what, failed); is {
			fmt.Fprintf(&text, "| %s | %d |\n", reason, r.counts[what])
		}
	}
	r.t.Logf("\n%s", text.String())
	if file == "" {
		return
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		r.t.Error(err)
	}
}

// figures writes the table of the measured figures.
func (r *run) figures(out *strings.Builder) {
	m := r.measured
	waited := float64(r.counts[waitedUnheard] + r.counts[waitedDry])
	share := 100 * waited / (waited + float64(r.added.Load()))
	thousand := func(n float64) string { return fmt.Sprintf("%.0f", 1000*n/m.trafficAdded) }
	fmt.Fprint(out, "| measured | value | target | result |\n| --- | --- | --- | --- |\n")
	row(out, "addresses a second, all hosts at the same time", fmt.Sprintf("%.0f", m.rushRate), ">= 1000", m.rushRate >= 1000)
	row(out, "the same / whereabouts", fmt.Sprintf("%.0f", m.rushRate/whereabouts), ">= 100", m.rushRate >= 100*whereabouts)
	row(out, "ADDs that waited for etcd", fmt.Sprintf("%.2f %%", share), "< 2 %", share < 2)
	row(out, "of these: "+waitedUnheard, fmt.Sprint(r.counts[waitedUnheard]), "", true)
	row(out, "of these: "+waitedDry, fmt.Sprint(r.counts[waitedDry]), "", true)
	row(out, refused+" after the wait", fmt.Sprint(r.counts[refused]), "", true)
	row(out, "seconds until all hosts own a block", fmt.Sprintf("%.1f", m.claimed.Seconds()), "", true)
	row(out, "addresses a second with pauses, while faults occur", fmt.Sprintf("%.0f", m.trafficAdded/m.traffic.Seconds()), "", true)
	row(out, "addresses at the same time, at most", fmt.Sprint(r.ledger.peak), "", true)
	row(out, "addresses freed", fmt.Sprint(r.freed.Load()), "", true)
	row(out, "blocks with an owner, of all", fmt.Sprintf("%d of %d", m.owned, m.blocks), "", true)
	row(out, "claims for 1,000 addresses", thousand(m.claims), "", true)
	row(out, fmt.Sprintf("requests to etcd for 1,000 addresses, with a *hear* every %.0f seconds for each host", (hear*r.unit()*9/8).Seconds()), thousand(m.requests), "", true)
	row(out, "entries in etcd's log for 1,000 addresses", thousand(m.log), "", true)
	row(out, "size of etcd's database, MB", fmt.Sprintf("%.1f", m.size/1e6), "", true)
}
