package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/probe"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
)

// addCounters adds a station for each counter of dropped packets that grew while the doctor sent
// its packets.
func (p *proof) addCounters(growth map[probe.Counter][]int) {
	for c, by := range growth {
		place := ""
		if c.Namespace != p.Host.Namespace {
			place = " in a container"
		}
		name := "rp_filter" + place
		if c.Rule != "" {
			name = "iptables-legacy" + place + ", " + c.Rule
		}
		switch {
		case slices.Max(by) == 0:
		case !slices.Equal(by, probe.Bursts):
			p.Note("maybe dropped by "+name, "its counter grew by %d for %d test packets and by %d for %d, so it also counted packets of others", by[0], probe.Bursts[0], by[len(by)-1], probe.Bursts[len(probe.Bursts)-1])
		case c.Rule == "" && p.Refused: // CheckHostRoute has reported the remedy already
			p.Note(report.DroppedBy+" "+name, "its counter grew with the test packets")
		default:
			remedy, advice, cause := p.remedyOfCounter(c)
			p.Advise(report.DroppedBy+" "+name, remedy, "its counter grew by the number of test packets, %d and then %d%s", by[0], by[1], cause).Advice = advice
		}
	}
}

// remedyOfCounter returns the remedy if the counter c has counted the doctor's packets as dropped.
// If the result advice is false, the remedy is a shell command. Otherwise the remedy is a text for
// a person. The result cause is "" if the cause is unknown.
func (p *proof) remedyOfCounter(c probe.Counter) (remedy string, advice bool, cause string) {
	if other := p.otherLink(); c.Rule == "" && c.Namespace == p.Host.Namespace && other != "" {
		return "send both by one link, or set rp_filter to 2: " + report.SetSysctl("ipv4/conf/"+other+"/rp_filter", "2"), true,
			fmt.Sprintf(": the request left by %s, and its answer came in by %s", p.Out, other)
	}
	switch {
	case c.Rule == "":
		return "the route to the sender leaves by another link: change the route, or set rp_filter to 2", true, ""
	case c.Namespace == p.Host.Namespace && p.A.LacksForwardRules() && strings.Contains(c.Rule, "FORWARD"):
		return "bvctl repair", false, ""
	}
	program := map[bool]string{true: "iptables-legacy", false: "ip6tables-legacy"}[p.Is4()]
	if rule, ok := strings.CutPrefix(c.Rule, "-A "); ok {
		return "have the owner of the rule accept the packet, or delete the rule: " + program + " -D " + rule, true, ""
	}
	return p.openForward("check " + program + "-save -c"), true, ""
}

// otherLink returns the link by which the answer came into the host, if this is not the link by
// which the request left the host. Otherwise it returns "".
func (p *proof) otherLink() (name string) {
	for _, index := range p.seen.CameBy(p.Host.Namespace, probe.Reply) {
		if link := kernel.LinkName(p.Host.Namespace, index); p.Out != "" && link != "" && link != p.Out {
			name = link
		}
	}
	return name
}
