package doctor

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/probe"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// addDrop adds the rule of nf_tables that dropped the doctor's packet in a namespace.
func (p *proof) addDrop(v probe.Verdict, ns *setup.Namespace) {
	place := ""
	if ns != p.Host.Namespace {
		place = " in the container's own namespace"
	}
	remedy, advice := p.remedyOfRule(v, ns)
	p.Advise(fmt.Sprintf("%s %s%s", report.DroppedBy, chainOf(v), place), remedy, "%s", ruleText(v, ns)).Advice = advice
}

// remedyOfRule returns what to do about a rule that drops packets. That depends on the owner of the rule.
func (p *proof) remedyOfRule(v probe.Verdict, ns *setup.Namespace) (remedy string, advice bool) {
	nft := p.enterCommand(ns) + "nft "
	chain := report.Command("%s %s %s", v.Family, v.Table, v.Chain)
	theirs := "whoever wrote that rule has to let the packet pass: " + nft + "-a list chain " + chain
	if v.Handle != 0 {
		theirs += fmt.Sprintf("; or take it away: %sdelete rule %s handle %d", nft, chain, v.Handle)
	}
	ofIPTables := slices.Contains([]string{"ip", "ip6"}, v.Family) && v.Table == "filter"
	switch {
	case v.Table == "bridgeveth":
		return "that is what the network's configuration says: ingressPolicy, inbound, macspoofchk, ipspoofchk, ipMasq", true
	case ns != p.Host.Namespace:
		return theirs, true
	case v.Family == "bridge":
		return theirs + "; ebtables -L has it too, if that made it", true
	case v.Family == "netdev":
		return theirs, true
	case ofIPTables && (p.A.LacksForwardRules() || p.B.LacksForwardRules()) || v.Table == "firewalld" && p.A.HostDiffers():
		return "bvctl repair", false
	case v.Table == "firewalld":
		return `give the network "forward": "auto" (the default), and run: bvctl repair; or it is a rule of yours: firewall-cmd --list-all-policies`, true
	case !ofIPTables:
		return theirs + `; or give the network "forwardChains", and run: bvctl repair`, true
	case v.Chain == "FORWARD" || strings.HasPrefix(v.Chain, "ufw"):
		return p.openForward(theirs), true
	}
	return theirs, true
}

// openForward returns what to do about a rule in FORWARD: the rules of bridgeveth accept the packets, unless the rule
// stands before them.
func (p *proof) openForward(theirs string) string {
	if accepts, err := p.Host.AcceptsForward(p.A.Bridge, kernel.FamilyOf(p.From)); err == nil && accepts {
		return "that rule stands ahead of ours; " + theirs
	}
	return `give the network "forward": "auto" (the default), and run: bvctl repair`
}

// enterCommand returns the beginning of a command for a namespace; "" for the host.
func (p *proof) enterCommand(ns *setup.Namespace) string {
	for _, e := range p.Containers() {
		if ns != p.Host.Namespace && e.Namespace.Same(ns) {
			return e.Command("")
		}
	}
	return ""
}

// ruleText returns the rule or policy of a verdict in the form of nft(8), or the handle of the rule if nft is not
// installed. Without counters, the text of a rule is the same in each report. nft(8) parses its arguments as one
// text, and a container may have named its chain like a command of nft: such names are not passed to it.
func ruleText(v probe.Verdict, ns *setup.Namespace) string {
	if v.Handle == 0 {
		return "policy drop"
	}
	text := fmt.Sprintf("rule with handle %d", v.Handle)
	if !report.Plain(v.Table) || !report.Plain(v.Chain) {
		return text
	}
	_ = ns.Do(func() error { // as documented
		nft, err := setup.ProgramPath("nft")
		if err != nil {
			return err
		}
		out, err := exec.Command(nft, "-s", "-a", "list", "chain", v.Family, v.Table, v.Chain).Output()
		if rule := regexp.MustCompile(fmt.Sprintf(`(?m)^\s*(.*? # handle %d)$`, v.Handle)).FindSubmatch(out); rule != nil {
			text = string(rule[1])
		}
		return err
	})
	return text
}
