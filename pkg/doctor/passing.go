package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// acceptsRedirected lists the owners whose chains do not drop packets that pass through the host,
// such as packets to a NodePort whose pod is on another node. kube-proxy changes the destination of
// these packets, and firewalld accepts packets with a changed destination (ct status dnat). The
// chains of bridgeveth and Docker match only packets of their own bridges.
var acceptsRedirected = []setup.Owner{setup.OwnerUs, setup.OwnerDocker, setup.OwnerFirewalld}

// PassingPackets reports the chains that drop packets which only pass through the host. Such
// packets come from another machine and go to a pod on another node (PodRanges), for example
// through a NodePort. The report has a note for each chain, and no bad station, because the chains
// do not affect the containers of this host. The returned list has one report, or is empty if no
// chain drops such packets.
func (d *Doctor) PassingPackets() ([]*Report, error) {
	r := &Report{From: "packets that only pass through this node"}
	for _, to := range d.PodRanges {
		routed, err := kernel.HasGatewayTo(d.Host.Namespace, to)
		if err != nil {
			return nil, err
		}
		if !routed {
			continue
		}
		chains, err := d.Host.ForwardChains(kernel.FamilyOf(to.Addr()))
		if err != nil {
			return nil, err
		}
		for _, c := range chains {
			if c.Denies != "" && !slices.Contains(acceptsRedirected, c.Owner) && !d.acceptsRange(c, to) {
				r.Note("chain "+c.String(), "%s (%s) drops packets that pass through to %s, such as those to a NodePort whose pod is on another node: %s",
					cmp.Or(string(c.Owner), "unknown owner"), c.Denies, to, acceptCommand(c, to))
			}
		}
	}
	return nonEmpty(r), nil
}

// nonEmpty returns a list with the report, or an empty list if the report has no stations.
func nonEmpty(r *Report) []*Report {
	if len(r.Stations) == 0 {
		return nil
	}
	return []*Report{r}
}

// acceptsTo matches a rule that accepts packets by their destination. acceptsKube matches a rule of
// kube-proxy in mode iptables: kube-proxy marks packets to a NodePort, and this rule accepts
// packets with the mark. Both expressions match the output of nft(8) and of iptables-save(8).
var (
	acceptsTo   = regexp.MustCompile(`(?m)(?:daddr|-d) (\S+)\b.*(?:accept|-j ACCEPT)(?: comment "[^"]*")?\s*$`)
	acceptsKube = regexp.MustCompile(`(?s)(?:-A KUBE-FORWARD [^\n]*mark 0x[^\n]*-j ACCEPT|chain KUBE-FORWARD \{[^}]*mark[^}]*accept)`)
)

// acceptsRange reports whether a rule in the table of chain c accepts packets to an address range.
// It finds the rule of kube-proxy, and rules that accept packets by their destination.
func (d *Doctor) acceptsRange(c setup.BaseChain, to netip.Prefix) bool {
	program, args := "nft", []string{"-s", "list", "table", c.Family, c.Table}
	if c.Owner == setup.OwnerLegacy {
		program, args = xtables(c, to)+"-save", nil
	}
	rules := ""
	_ = d.Host.Do(func() error { // if the program cannot be run, no rule is found
		path, err := setup.ProgramPath(program)
		if err != nil {
			return err
		}
		b, err := exec.Command(path, args...).Output()
		rules = string(b)
		return err
	})
	for _, rule := range acceptsTo.FindAllStringSubmatch(rules, -1) {
		if p, err := netip.ParsePrefix(rule[1]); err == nil && p.Bits() <= to.Bits() && p.Contains(to.Addr()) {
			return true
		}
	}
	return acceptsKube.MatchString(rules)
}

// xtables returns the name of the iptables program that can change chain c.
func xtables(c setup.BaseChain, to netip.Prefix) string {
	name := map[bool]string{true: "iptables", false: "ip6tables"}[to.Addr().Is4()]
	if c.Owner == setup.OwnerLegacy {
		name += "-legacy"
	}
	return name
}

// acceptCommand returns the commands that add two rules to chain c: one rule for packets to an
// address range, and one for replies from the range. The rules do not accept new connections from
// the range, because such connections may lead to containers of Docker (see setup.EnsureTransit).
func acceptCommand(c setup.BaseChain, to netip.Prefix) string {
	if c.Owner == setup.OwnerUnknown {
		return fmt.Sprintf("have the owner of the chain accept packets to %s, and replies from it", to)
	}
	at := "-I"
	if strings.HasPrefix(c.Denies, "policy ") {
		at = "-A" // the new rules go after the rules of other programs
	}
	rule := fmt.Sprintf("%s %s FORWARD", xtables(c, to), at)
	return fmt.Sprintf("%s -s %s -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; %s -d %s -j ACCEPT", rule, to, rule, to)
}
