package chaos

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// entry is a line of the log: an operation with its result.
type entry struct {
	at, ended   time.Time
	worker      int
	action      string // verb or fault
	network     string // "" for a fault
	container   string // "" if the action concerns the whole network or host
	disturbance disturbance
	result      string
}

// log adds a line about an operation that has just ended to the log.
func (r *run) log(e entry) {
	e.ended, e.result = time.Now(), strings.TrimSpace(e.result)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, e)
}

// count adds 1 to a number of the report.
func (r *run) count(table, row string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts[table] == nil {
		r.counts[table] = map[string]int{}
	}
	r.counts[table][row]++
}

// problem is something that must not happen.
type problem struct {
	what  string
	about []string // containers and addresses
}

// problem records a problem. The parameter about names the containers and addresses whose log
// passed prints.
func (r *run) problem(what string, about ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, problem{what, about})
}

// mostPrinted is the number of problems that passed prints with their logs.
const mostPrinted = 5

// passed returns true if the run has no problem yet. Otherwise it fails the test, and prints the
// seed and, for the first problems, the operations that concern their containers and addresses.
func (r *run) passed() bool {
	if len(r.problems) == 0 && !r.t.Failed() {
		return true
	}
	if err := r.writeFailure(os.Getenv(failureVar)); err != nil {
		r.t.Error(err)
	}
	slices.SortStableFunc(r.entries, func(a, b entry) int { return a.at.Compare(b.at) })
	r.t.Errorf("%d problems; to run again: make chaos SEED=%d OPERATIONS=%d", len(r.problems), r.seed, r.operations)
	for _, p := range r.problems[:min(len(r.problems), mostPrinted)] {
		r.t.Errorf("%s\n%s", p.what, strings.Join(r.history(p.about), "\n"))
	}
	return false
}

// history returns the lines of the log that concern the given containers and addresses, and the
// lines that concern the whole host since the first of them.
func (r *run) history(about []string) (lines []string) {
	mentions := func(text string) bool {
		words := strings.FieldsFunc(text, separates)
		return slices.ContainsFunc(about, func(name string) bool { return slices.Contains(words, name) })
	}
	for _, e := range r.entries {
		if !mentions(e.container+" "+e.result) && (len(lines) == 0 || e.container != "" || e.action == "STATUS") {
			continue
		}
		line := fmt.Sprintf("  %7.3f s  worker %d: %s %s %s", e.at.Sub(r.began).Seconds(), e.worker, e.action, e.network, e.container)
		if e.disturbance != none {
			line += ", " + string(e.disturbance)
		}
		for part := range strings.Lines(e.result) {
			if mentions(part) || !strings.Contains(e.result, "\n") { // of a long result, only the lines about the containers
				line += ": " + strings.TrimSpace(part)
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// separates reports whether a character of a result ends a name or an address.
func separates(c rune) bool { return strings.ContainsRune(" ,:;/[]()\"'\n", c) }

// expectations say what the run has checked for each fault.
var expectations = []struct{ fault, result string }{
	{string(kill), "DEL or GC removed the rest of the attachment"},
	{string(stop), "the call ended as without the stop"},
	{string(starve), "DEL or GC removed the rest of the attachment"},
	{namespaceDeleted, "DEL removed the rest of the attachment"},
	{containerLost, "GC removed the rest of the attachment"},
	{hostEndDeleted, "DEL removed the rest of the attachment"},
	{ifbDeleted, "one `bvctl repair` restored the limit"},
	{bridgeDeleted, "one `bvctl repair` restored the bridge and its ports"},
	{iptablesFlushed, "one `bvctl repair` restored the rules"},
	{rulesetFlushed, "one `bvctl repair` restored the rules, host ports and guards"},
	{storeDeleted, "the next ADD of each network restored the leases"},
	{diskFilled, "ADD failed or succeeded; DEL succeeded and left nothing"},
	{firewalldReloaded, "one `bvctl repair` restored the zones of the bridges"},
	{dockerRestarted, "one `bvctl repair` restored the rules"},
	{attacked, "each attack failed"},
}

// report writes the result of a run without problems as Markdown to a file. It writes nothing if
// the name of the file is empty.
func (r *run) report(file string) {
	if file == "" {
		return
	}
	var text strings.Builder
	version := func(program string, args ...string) string {
		return strings.TrimSpace(setuptest.Run(r.t, program, args...))
	}
	fmt.Fprintf(&text, "Run of %s: seed %d, %d operations by %d workers, %d processors, %.0f seconds.\n",
		r.began.UTC().Format("2006-01-02"), r.seed, r.operations, len(r.workers), runtime.NumCPU(), time.Since(r.began).Seconds())
	fmt.Fprintf(&text, "Programs: Linux %s, %s, %s, %s.\n",
		version("uname", "-r"), version("iptables", "--version"), version("nft", "--version"), version(programs+"/bvctl", "--version"))
	fmt.Fprint(&text, "\n| fault | cases | result |\n| --- | --- | --- |\n")
	for _, e := range expectations {
		if e.fault == attacked && r.hostile == nil {
			e.result = "not run: the run is short"
		}
		if why := r.firewalls.missing[e.fault]; why != "" {
			e.result = "not run: " + why
		}
		fmt.Fprintf(&text, "| %s | %d | %s |\n", e.fault, r.counts["faults"][e.fault], e.result)
	}
	fmt.Fprint(&text, "\n| call | number |\n| --- | --- |\n")
	for _, call := range slices.Sorted(maps.Keys(r.counts["calls"])) {
		fmt.Fprintf(&text, "| %s | %d |\n", call, r.counts["calls"][call])
	}
	fmt.Fprintf(&text, "\nchecks of a living container after a repair: %d\n", r.counts["checked"]["containers"])
	fmt.Fprintf(&text, "host ports that another container got because a flush hit the ADD: %d\n", r.counts["flushed"]["ADDs"])
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		r.t.Error(err)
	}
}
