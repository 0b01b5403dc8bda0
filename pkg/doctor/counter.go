package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// counter is one of what drops packets without a word to nf_tables: a rule of
// iptables-legacy, or the filter of reverse paths.
type counter struct {
	ns   *setup.Namespace
	rule string // of iptables-legacy; none is the filter
}

// bursts are how many packets are sent at a time: what a counter went up by tells ours from
// those of others.
var bursts = []int{2, 3}

// send sends the bursts, and says by how much each counter went up with each of them. It
// ends at the first answer.
func (w *walk) send(ctx context.Context, p *probe, posts []post) (grown map[counter][]int, failure error) {
	grown = map[counter][]int{}
	before := w.counters(posts)
	for _, size := range bursts {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var err error
		if w.Answered, err = p.burst(size); w.Answered {
			return grown, nil
		}
		if err != nil {
			failure = err
		}
		after := w.counters(posts)
		for c, count := range after {
			grown[c] = append(grown[c], count-before[c])
		}
		before = after
	}
	return grown, failure
}

// counted says which counters tell of our packets.
func (w *walk) counted(grown map[counter][]int, seen sightings) {
	for c, by := range grown {
		place := ""
		if c.ns != w.Host.Namespace {
			place = " in a container"
		}
		name := "the filter of reverse paths" + place
		if c.rule != "" {
			name = "iptables-legacy" + place + ", " + c.rule
		}
		switch {
		case slices.Max(by) == 0:
		case !slices.Equal(by, bursts):
			w.note("maybe dropped by "+name, "its counter went up by %d as we sent %d packets, and then by %d as we sent %d: others' are among them", by[0], bursts[0], by[len(by)-1], bursts[len(bursts)-1])
		case c.rule == "" && w.refused: // said already
			w.note(droppedBy+" "+name, "its counter went up with our packets")
		default:
			remedy, advice := c.remedy(w)
			why := ""
			if other := w.otherLink(seen); c.rule == "" && c.ns == w.Host.Namespace && other != "" {
				why = fmt.Sprintf(": the request left by %s, and its answer came in by %s", w.out, other)
				remedy = "have both go by one link; or " + setSysctl("ipv4/conf/"+other+"/rp_filter", "2")
			}
			w.sad(droppedBy+" "+name, remedy, "its counter went up by as many as we sent, %d and then %d%s", by[0], by[1], why)
			w.Stations[len(w.Stations)-1].Advice = advice
		}
	}
}

// otherLink is the link by which the answer came in, where the request has left the host by another.
func (w *walk) otherLink(seen sightings) (name string) {
	_ = w.Host.Do(func() error { // without its name it has none
		for _, index := range seen.cameBy(w.Host.Namespace, reply) {
			link, err := netlink.LinkByIndex(index)
			if err == nil && w.out != "" && link.Attrs().Name != w.out {
				name = link.Attrs().Name
			}
		}
		return nil
	})
	return name
}

// remedy is what to do about a counter.
func (c counter) remedy(w *walk) (remedy string, advice bool) {
	switch {
	case c.rule == "":
		return "the way back to the sender is another: look at the routes, or set rp_filter to 2", true
	case c.ns == w.Host.Namespace && w.a.lacksForward() && strings.Contains(c.rule, "FORWARD"):
		return "bvctl repair", false
	}
	program := map[bool]string{true: "iptables-legacy", false: "ip6tables-legacy"}[w.from.Is4()]
	if rule, ok := strings.CutPrefix(c.rule, "-A "); ok {
		return "whoever wrote that rule has to let the packet pass, or to take it away: " + program + " -D " + rule, true
	}
	return w.openUp(program + "-save -c"), true
}

// counters reads them all.
func (w *walk) counters(posts []post) map[counter]int {
	all := map[counter]int{}
	for _, at := range posts {
		_ = at.ns.Do(func() error { // what cannot be read has no counters
			if b, err := os.ReadFile("/proc/thread-self/net/netstat"); err == nil {
				all[counter{at.ns, ""}] = counterOf(string(b), "IPReversePathFilter")
			}
			names := map[bool][2]string{true: {"ip_tables_names", "iptables-legacy-save"}, false: {"ip6_tables_names", "ip6tables-legacy-save"}}[w.from.Is4()]
			if used, err := os.ReadFile("/proc/thread-self/net/" + names[0]); err != nil || len(used) == 0 {
				return err // asking iptables-legacy would make its tables
			}
			save, err := setup.ProgramPath(names[1])
			if err != nil {
				return err
			}
			saved, err := exec.Command(save, "-c").Output()
			for rule, count := range legacyDrops(string(saved)) {
				all[counter{at.ns, rule}] = count
			}
			return err
		})
	}
	return all
}

// counterOf reads a counter of /proc/net/netstat: a line of names, and one of values.
func counterOf(text, name string) int {
	lines := strings.Split(text, "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		if at := slices.Index(names, name); at >= 0 && at < len(values) {
			count, _ := strconv.Atoi(values[at])
			return count
		}
	}
	return 0
}

var (
	legacyPolicy = regexp.MustCompile(`(?m)^:(\w+) DROP \[(\d+):`)
	legacyRule   = regexp.MustCompile(`(?m)^\[(\d+):\d+\] (-A .* -j (?:DROP|REJECT).*)$`)
)

// legacyDrops reads what iptables-legacy-save -c says of rules that drop.
func legacyDrops(saved string) map[string]int {
	all := map[string]int{}
	for _, m := range legacyPolicy.FindAllStringSubmatch(saved, -1) {
		all["policy DROP of "+m[1]], _ = strconv.Atoi(m[2])
	}
	for _, m := range legacyRule.FindAllStringSubmatch(saved, -1) {
		all[m[2]], _ = strconv.Atoi(m[1])
	}
	return all
}
