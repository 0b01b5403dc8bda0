package ownrules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables/expr"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// policy is a setting of a network, such as the ingress policy, with the rules that put the setting into effect.
// All rules of a policy are in one chain. If the value of the setting changes, ComparePolicy replaces the rules
// of the old value by those of the new value. If the new value needs no rules, ComparePolicy only deletes the
// old rules.
type policy struct {
	Chain chain
	Name  string // name of the setting, which follows the name of the bridge in the comments of rules
	rules []policyRule
}

type policyRule struct {
	value string // value of the setting, at the end of the rule's comment
	exprs []expr.Any
}

func (p *policy) add(value string, exprs []expr.Any) {
	p.rules = append(p.rules, policyRule{value, exprs})
}

// ComparePolicy compares a policy with the rules in its chain. It returns a difference for each missing rule,
// and for each rule of an old value of the setting. Such an old rule must be deleted. ComparePolicy recognizes
// rules by their comments. The parameter present holds the handles of the chain's rules, by comment.
func ComparePolicy(n *netns.Namespace, net *plan.Network, family int, p policy, present map[string][]uint64) (missing []plan.Difference) {
	wanted := map[string]bool{}
	for _, rule := range p.rules {
		r := ownRule{chain: p.Chain, comment: net.Comment(p.Name, rule.value), exprs: rule.exprs}
		if wanted[r.comment] = true; len(present[r.comment]) == 0 {
			f := feature{what: fmt.Sprintf("policy %s %s of %s", p.Name, rule.value, net.RoutedBy()), family: family, rules: []ownRule{r}}
			missing = append(missing, plan.Difference{What: f.what, Restore: func() error { return addFeature(n, f) }})
		}
	}
	for comment := range present {
		if strings.HasPrefix(comment, net.Comment(p.Name)+" ") && !wanted[comment] {
			missing = append(missing, plan.Difference{
				What:    fmt.Sprintf("policy %s as configured (found the rule %q)", p.Name, comment),
				Restore: func() error { return deleteOwn(n, family, p.Chain, comment) },
			})
		}
	}
	return missing
}

// IngressPolicy returns the rule that drops new connections from other bridges into a bridge:
//
//	ct state & (established|related) == 0 iifkind "bridge" iifname != BRIDGE oifname BRIDGE ct status & dnat == 0 counter drop
//
// For IngressIsolated, the rule has no match on iifname. With that match, isolated ports of the bridge could
// send to each other through the gateway.
func IngressPolicy(net *plan.Network) policy {
	p := policy{Chain: ForwardFilter, Name: "ingress"}
	if net.Ingress == plan.IngressOpen {
		return p
	}
	from := nft.InterfaceIs(nft.MetaIIFKind, expr.CmpOpEq, "bridge")
	if net.Ingress == plan.IngressSameBridge {
		from = slices.Concat(from, nft.InterfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq, net.RoutedBy()))
	}
	p.add(net.Ingress.String(), slices.Concat(nft.Unanswered(), from, nft.InterfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, net.RoutedBy()), nft.Untranslated(), nft.Drop()))
	return p
}

// inboundPolicy returns the rule that drops new connections into a bridge, except those from the host, from the
// bridge itself, and to published ports:
//
//	ct state & (established|related) == 0 iifname != BRIDGE oifname BRIDGE ct status & dnat == 0 counter drop
func inboundPolicy(net *plan.Network) policy {
	p := policy{Chain: ForwardFilter, Name: "inbound"}
	if net.EstablishedOnly {
		p.add("established", slices.Concat(nft.Unanswered(), nft.InterfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq, net.RoutedBy()),
			nft.InterfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, net.RoutedBy()), nft.Untranslated(), nft.Drop()))
	}
	return p
}

// markPolicy returns the rules that set bits in the mark of the bridge's packets, before other chains filter
// the packets:
//
//	iifname BRIDGE meta mark set meta mark | MARK
//	oifname BRIDGE meta mark set meta mark | MARK
//
// An administrator can then accept packets with this mark in a chain that bridgeveth does not write to.
func markPolicy(net *plan.Network) policy {
	p := policy{Chain: marking, Name: "mark"}
	if net.Mark != 0 {
		for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
			p.add(fmt.Sprintf("%#x %s", net.Mark, nft.Direction(key)), slices.Concat(nft.InterfaceIs(key, expr.CmpOpEq, net.RoutedBy()), nft.OrMark(net.Mark)))
		}
	}
	return p
}
