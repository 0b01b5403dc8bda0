package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// indifferent are owners whose chains drop no such packets: firewalld accepts what somebody has
// redirected (ct status dnat), and the others look at packets of their own bridges only.
var indifferent = []setup.Owner{setup.OwnerUs, setup.OwnerDocker, setup.OwnerFirewalld}

// Through returns a report on packets that only pass through the host: in by its uplink and
// out by an uplink, to containers elsewhere, as those of a NodePort whose pod is on another
// node. PodRanges are those of such containers. Each chain that drops these packets is a Note,
// since no way from a container meets it. nil is that there are none. It changes nothing.
func (d *Doctor) Through() (*Report, error) {
	r := &Report{From: "packets that only pass through this node"}
	for _, to := range d.PodRanges {
		if routed, err := d.routesElsewhere(to); err != nil || !routed {
			if err != nil {
				return nil, err
			}
			continue
		}
		chains, err := d.Host.ForwardChains(familyOf(to.Addr()))
		if err != nil {
			return nil, err
		}
		for _, c := range chains {
			if c.Denies != "" && !slices.Contains(indifferent, c.Owner) && !d.accepts(c, to) {
				r.note("chain "+c.String(), "%s (%s) drops what passes through to %s, as to a NodePort whose pod is on another node: %s",
					cmp.Or(string(c.Owner), "it"), c.Denies, to, letThrough(c, to))
			}
		}
	}
	if len(r.Stations) == 0 {
		return nil, nil //nolint:nilnil // as documented
	}
	return r, nil
}

// routesElsewhere reports whether a router leads to a part of the range.
func (d *Doctor) routesElsewhere(to netip.Prefix) (found bool, err error) {
	err = d.Host.Do(func() error {
		routes, err := dump(here.RouteList, nil, familyOf(to.Addr()))
		found = slices.ContainsFunc(routes, func(r netlink.Route) bool {
			return r.Gw != nil && r.Dst != nil && prefixOf(r.Dst).Bits() > 0 && prefixOf(r.Dst).Overlaps(to)
		})
		return err
	})
	return found, err
}

// Rules as nft(8) and iptables-save(8) print them. kube-proxy in mode iptables marks the first
// packet to a NodePort, and accepts what has the mark.
var (
	acceptsTo   = regexp.MustCompile(`(?m)(?:daddr|-d) (\S+)\b.*(?:accept|-j ACCEPT)\s*$`)
	acceptsKube = regexp.MustCompile(`(?s)(?:-A KUBE-FORWARD [^\n]*mark 0x[^\n]*-j ACCEPT|chain KUBE-FORWARD \{[^}]*mark[^}]*accept)`)
)

// accepts reports whether a rule in the chain's table accepts what goes to the range. A rule that tells
// the packets by something else than their destination is not found.
func (d *Doctor) accepts(c setup.BaseChain, to netip.Prefix) bool {
	program, args := "nft", []string{"-s", "list", "table", c.Family, c.Table}
	if c.Owner == setup.OwnerLegacy {
		program, args = xtables(c, to)+"-save", nil
	}
	rules := ""
	_ = d.Host.Do(func() error { // without the program no such rule is known
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

// xtables is the program of a chain of iptables for a family.
func xtables(c setup.BaseChain, to netip.Prefix) string {
	name := map[bool]string{true: "iptables", false: "ip6tables"}[to.Addr().Is4()]
	if c.Owner == setup.OwnerLegacy {
		name += "-legacy"
	}
	return name
}

// letThrough is what lets packets pass a chain on their way to the range.
func letThrough(c setup.BaseChain, to netip.Prefix) string {
	if c.Owner == setup.OwnerUnknown {
		return fmt.Sprintf("whoever wrote the chain has to accept packets from and to %s", to)
	}
	at := "-I"
	if strings.HasPrefix(c.Denies, "policy ") {
		at = "-A" // behind the rules of others
	}
	rule := fmt.Sprintf("%s %s FORWARD", xtables(c, to), at)
	return fmt.Sprintf("%s -s %s -j ACCEPT; %s -d %s -j ACCEPT", rule, to, rule, to)
}
