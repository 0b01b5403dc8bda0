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

// addDrop adds a station for the nf_tables rule or policy that dropped the doctor's packet. ns is
// the namespace of the rule or policy.
func (p *proof) addDrop(v probe.Verdict, ns *setup.Namespace) {
	place := ""
	if ns != p.Host.Namespace {
		place = " in the container's own namespace"
	}
	remedy, advice := p.remedyOfRule(v, ns)
	p.Advise(fmt.Sprintf("%s %s%s", report.DroppedBy, chainOf(v), place), remedy, "%s", ruleText(v, ns)).Advice = advice
}

// remedyOfRule returns the remedy for the rule that dropped the doctor's packet. The remedy depends
// on the program that owns the rule. If the result advice is false, the remedy is a shell command.
// Otherwise the remedy is a text for a person.
func (p *proof) remedyOfRule(v probe.Verdict, ns *setup.Namespace) (remedy string, advice bool) {
	nft := p.enterCommand(ns) + "nft "
	chain := report.Command("%s %s %s", v.Family, v.Table, v.Chain)
	ofOwner := "have the owner of the chain accept the packet: " + nft + "-a list chain " + chain
	if v.Handle != 0 {
		ofOwner += fmt.Sprintf("; or delete the rule: %sdelete rule %s handle %d", nft, chain, v.Handle)
	}
	ofIPTables := slices.Contains([]string{"ip", "ip6"}, v.Family) && v.Table == "filter"
	switch {
	case v.Table == "bridgeveth":
		return "change the network's configuration: one of ingressPolicy, inbound, macspoofchk, ipspoofchk and ipMasq made the rule", true
	case ns != p.Host.Namespace:
		return ofOwner, true
	case v.Family == "bridge":
		return ofOwner + "; if ebtables made the rule: ebtables -L", true
	case v.Family == "netdev":
		return ofOwner, true
	case ofIPTables && (p.A.LacksForwardRules() || p.B.LacksForwardRules()) || v.Table == "firewalld" && p.A.HostDiffers():
		return "bvctl repair", false
	case v.Table == "firewalld":
		return `set "forward": "auto" (the default) for the network, and run bvctl repair; or change your own rule: firewall-cmd --list-all-policies`, true
	case !ofIPTables:
		return ofOwner + `; or set "forwardChains" for the network, and run bvctl repair`, true
	case v.Chain == "FORWARD" || strings.HasPrefix(v.Chain, "ufw"):
		return p.openForward(ofOwner), true
	}
	return ofOwner, true
}

// openForward returns the remedy for a rule in FORWARD that drops packets. If bridgeveth's rules
// are in FORWARD, the dropping rule stands before them. Only the owner of that rule can then help,
// so openForward returns the parameter ofOwner: advice for this case. Otherwise the remedy is to
// add bridgeveth's rules.
func (p *proof) openForward(ofOwner string) string {
	if accepts, err := p.Host.AcceptsForward(p.A.Bridge, kernel.FamilyOf(p.From)); err == nil && accepts {
		return "the rule stands before the rules of bridgeveth; " + ofOwner
	}
	return `set "forward": "auto" (the default) for the network, and run bvctl repair`
}

// enterCommand returns the beginning of a shell command that enters namespace ns. It returns "" if
// ns is the host's namespace.
func (p *proof) enterCommand(ns *setup.Namespace) string {
	for _, e := range p.Containers() {
		if ns != p.Host.Namespace && e.Namespace.Same(ns) {
			return e.Command("")
		}
	}
	return ""
}

// ruleText returns the rule or policy of a verdict in the form of nft(8), without its counters, so
// that the text is the same in each report. If nft is not installed, the text is the handle of the
// rule.
//
// A container could give its chain a name that contains an nft command, and nft(8) would run this
// command. So ruleText does not pass names with special characters to nft.
func ruleText(v probe.Verdict, ns *setup.Namespace) string {
	if v.Handle == 0 {
		return "policy drop"
	}
	text := fmt.Sprintf("rule with handle %d", v.Handle)
	if !report.Plain(v.Table) || !report.Plain(v.Chain) {
		return text
	}
	_ = ns.Do(func() error { // if Do fails, text stays the handle
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
