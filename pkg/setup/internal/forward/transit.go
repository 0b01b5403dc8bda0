package forward

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/xtables"
)

// Transit packets pass through the host, but through no bridge of ours. An example is a packet to a
// NodePort of Kubernetes whose pod is on another node: the packet arrives by the uplink, and leaves by
// the uplink or by a tunnel. The rules for transit packets are in transitChain. BRIDGEVETH-FORWARD
// jumps to transitChain after the jump to the administrator's chain, so the administrator's rules
// take effect first.

const transitChain = "BRIDGEVETH-TRANSIT"

// toTransit is the jump from BRIDGEVETH-FORWARD to BRIDGEVETH-TRANSIT.
var toTransit = xtables.Rule{Target: transitChain}

// MissingTransit compares the transit rules in iptables-nft with the rules that the ranges need. It
// returns one difference for each address family whose rules differ. The rules for each range are:
//
//	-d RANGE -j ACCEPT
//	-s RANGE -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
//
// The rules do not accept new connections from a range, because such a connection may lead to
// Docker's containers, which other networks must not reach. Surplus rules for other ranges are
// a difference too. Difference.Restore deletes surplus rules. If there is no FORWARD chain, nothing
// denies the packets, so nothing is missing.
func MissingTransit(n *netns.Namespace, ranges []netip.Prefix) (missing []plan.Difference, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		wanted := ofFamily(ranges, family)
		t, err := readNFT(n, family)
		if err != nil {
			return nil, err
		}
		if !t.inForce {
			continue
		}
		lacking, surplus, err := compareTransit(n, family, wanted)
		if err != nil {
			return nil, err
		}
		if len(wanted) == 0 {
			if len(surplus) > 0 {
				missing = append(missing, plan.Difference{What: fmt.Sprintf("no transit rules in %s", t), Restore: func() error { return removeTransit(n, t) }})
			}
		} else if len(lacking)+len(surplus) > 0 || !transits(t.own) || !t.jumps() {
			missing = append(missing, plan.Difference{
				What:    fmt.Sprintf("transit rules for %v in %s", wanted, t),
				Restore: func() error { return addTransit(n, t, wanted) },
			})
		}
	}
	return missing, nil
}

// CheckTransit returns an error if iptables-legacy denies transit packets. bridgeveth adds no
// transit rules to iptables-legacy, so the administrator must add them. In two cases, CheckTransit
// assumes that FORWARD accepts transit packets: FORWARD has a rule of kube-proxy, or an accept rule
// that matches anything except interfaces and conntrack states.
func CheckTransit(n *netns.Namespace, ranges []netip.Prefix) error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		wanted := ofFamily(ranges, family)
		t, err := readLegacy(n, family)
		if err != nil || len(wanted) == 0 || !t.inForce || t.denial() == "" {
			errs = append(errs, err)
			continue
		}
		if !slices.ContainsFunc(t.forward, func(r xtables.Rule) bool { return r.Other && r.Target == xtables.Accept || r.Target == "KUBE-FORWARD" }) {
			add := fmt.Sprintf("%s -I FORWARD", t.program())
			errs = append(errs, fmt.Errorf("%s denies packets (%s) that pass through to %v, such as those to a NodePort whose pod is on another node: run \"%s -d %v -j ACCEPT && %s -s %v -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\"",
				t, t.denial(), wanted[0], add, wanted[0], add, wanted[0]))
		}
	}
	return errors.Join(errs...)
}

// DeleteTransit deletes all transit rules. If BRIDGEVETH-FORWARD then has no other rules, it
// deletes this chain too.
func DeleteTransit(n *netns.Namespace) error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		exists, err := nft.HasChain(n, family, xtables.Filter, transitChain)
		if exists {
			err = removeTransit(n, filter{flavour: "nft", family: family})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func ofFamily(ranges []netip.Prefix, family int) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(ranges), func(p netip.Prefix) bool { return netns.FamilyOf(p.Addr()) != family })
}

// transits reports whether BRIDGEVETH-FORWARD jumps correctly to the transit chain. The parameter
// "own" has the rules of BRIDGEVETH-FORWARD. The first rule must be the jump to BRIDGEVETH-ADMIN.
// There must be exactly one jump to the transit chain, before the rules of other programs.
func transits(own []xtables.Rule) bool {
	at := slices.Index(own, toTransit)
	return at > 0 && own[0] == toAdmin && !slices.ContainsFunc(own[:at], foreign) && count(own, func(r xtables.Rule) bool { return r == toTransit }) == 1
}

// compareTransit compares the transit chain with the rules that the ranges need. It returns the
// rules that the chain lacks (missing), and the handles of the rules that the ranges do not need
// (surplus). It recognizes a rule by the comment. iptables cannot read a rule that nft(8) has
// loaded from a saved ruleset. Therefore surplus has such a rule, and missing has a new rule that
// replaces it.
func compareTransit(n *netns.Namespace, family int, ranges []netip.Prefix) (missing []nft.Rule, surplus []uint64, err error) {
	dumped, err := nft.Rules(n, family, xtables.Filter, transitChain)
	if err != nil {
		return nil, nil, err
	}
	missing = transitRules(ranges)
	for _, found := range dumped {
		at := slices.IndexFunc(missing, func(r nft.Rule) bool { return r.Comment == nft.Comment(found) })
		if at >= 0 && xtables.Readable(found.Get(unix.NFTA_RULE_EXPRESSIONS)) {
			missing = slices.Delete(missing, at, at+1)
		} else {
			surplus = append(surplus, nft.Handle(found))
		}
	}
	return missing, surplus, nil
}

func transitRules(ranges []netip.Prefix) (list []nft.Rule) {
	add := func(comment string, match []expr.Any, r xtables.Rule) {
		list = append(list, nft.Rule{Chain: transitChain, Comment: comment, Exprs: slices.Concat(match, r.Expressions())})
	}
	for _, p := range ranges {
		add(fmt.Sprintf("to %v", p), within(nft.Destination4, nft.Destination6, p), xtables.Rule{Target: xtables.Accept})
		add(fmt.Sprintf("replies from %v", p), within(nft.Source4, nft.Source6, p), xtables.Rule{States: xtables.StateRelated | xtables.StateEstablished, Target: xtables.Accept})
	}
	return list
}

// within compares an address in the network header with a subnet, and loads the whole address for
// this. nft.Within loads only the bytes that the prefix covers, but iptables-nft up to 1.8.6 reads
// such a rule as a rule about a single address.
func within(offset4, offset6 uint32, subnet netip.Prefix) []expr.Any {
	if subnet.IsSingleIP() {
		return nft.Within(offset4, offset6, subnet, expr.CmpOpEq)
	}
	return nft.UnderMask(offset4, offset6, subnet, expr.CmpOpEq)
}

// addTransit adds the missing transit rules and deletes the surplus rules of the transit chain. It
// also adds the chains and jumps that lead to the transit chain.
func addTransit(n *netns.Namespace, t filter, ranges []netip.Prefix) error {
	return change(n, t, func(c *nft.Change, base, own nftChain) error {
		missing, surplus, err := compareTransit(n, t.family, ranges)
		if err != nil {
			return err
		}
		for _, name := range []string{forwardChain, adminChain, transitChain} {
			c.AddChain(&nftables.Chain{Name: name, Table: t.table()})
		}
		c.DeleteRules(transitChain, surplus)
		for _, r := range missing {
			c.AddRule(r)
		}
		if !transits(own.rules) {
			own.deleteFrom(c, func(r xtables.Rule) bool { return r == toAdmin || r == toTransit })
			for _, r := range []xtables.Rule{toTransit, toAdmin} {
				c.AddRule(nft.Rule{Chain: own.Name, Exprs: r.Expressions(), First: true})
			}
		}
		placeJumpNFT(c, base)
		return nil
	})
}

// removeTransit is the inverse of addTransit.
func removeTransit(n *netns.Namespace, t filter) error {
	isJump := func(r xtables.Rule) bool { return r == toTransit }
	return change(n, t, func(c *nft.Change, base, own nftChain) error {
		_, rules, err := compareTransit(n, t.family, nil)
		if err != nil {
			return err
		}
		c.DeleteRules(transitChain, rules)
		return errors.Join(
			removeOwn(n, c, base, own, isJump),
			deleteIfUnused(n, c, &nftables.Chain{Name: transitChain, Table: t.table()}, len(rules)+count(own.rules, isJump)),
		)
	})
}
