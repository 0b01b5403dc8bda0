package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/probe"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
)

// addCounters adds the counters that counted the doctor's packets.
func (p *proof) addCounters(growth map[probe.Counter][]int) {
	for c, by := range growth {
		place := ""
		if c.Namespace != p.Host.Namespace {
			place = " in a container"
		}
		name := "the filter of reverse paths" + place
		if c.Rule != "" {
			name = "iptables-legacy" + place + ", " + c.Rule
		}
		switch {
		case slices.Max(by) == 0:
		case !slices.Equal(by, probe.Bursts):
			p.Note("maybe dropped by "+name, "its counter went up by %d as we sent %d packets, and then by %d as we sent %d: others' are among them", by[0], probe.Bursts[0], by[len(by)-1], probe.Bursts[len(probe.Bursts)-1])
		case c.Rule == "" && p.Refused: // CheckHostRoute has said so
			p.Note(report.DroppedBy+" "+name, "its counter went up with our packets")
		default:
			remedy, advice, cause := p.remedyOfCounter(c)
			p.Advise(report.DroppedBy+" "+name, remedy, "its counter went up by as many as we sent, %d and then %d%s", by[0], by[1], cause).Advice = advice
		}
	}
}

// remedyOfCounter returns what to do about a counter, and the cause if it is known.
func (p *proof) remedyOfCounter(c probe.Counter) (remedy string, advice bool, cause string) {
	if other := p.otherLink(); c.Rule == "" && c.Namespace == p.Host.Namespace && other != "" {
		return "have both go by one link; or " + report.SetSysctl("ipv4/conf/"+other+"/rp_filter", "2"), true,
			fmt.Sprintf(": the request left by %s, and its answer came in by %s", p.Out, other)
	}
	switch {
	case c.Rule == "":
		return "the way back to the sender is another: look at the routes, or set rp_filter to 2", true, ""
	case c.Namespace == p.Host.Namespace && p.A.LacksForwardRules() && strings.Contains(c.Rule, "FORWARD"):
		return "bvctl repair", false, ""
	}
	program := map[bool]string{true: "iptables-legacy", false: "ip6tables-legacy"}[p.Is4()]
	if rule, ok := strings.CutPrefix(c.Rule, "-A "); ok {
		return "whoever wrote that rule has to let the packet pass, or to take it away: " + program + " -D " + rule, true, ""
	}
	return p.openForward(program + "-save -c"), true, ""
}

// otherLink returns the link of the host by which the answer came in, if the request left by another. It
// returns "" if not.
func (p *proof) otherLink() (name string) {
	for _, index := range p.seen.CameBy(p.Host.Namespace, probe.Reply) {
		if link := kernel.LinkName(p.Host.Namespace, index); p.Out != "" && link != "" && link != p.Out {
			name = link
		}
	}
	return name
}
