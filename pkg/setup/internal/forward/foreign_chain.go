package forward

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// chainFamily is a Chain's, as the kernel counts them.
func chainFamily(c plan.Chain) int {
	return map[string]int{"ip": unix.AF_INET, "ip6": unix.AF_INET6, "inet": nft.FamilyINet}[c.Family]
}

// byIPTables says whether iptables-nft keeps the chain.
func byIPTables(c plan.Chain) bool {
	return c.Family != "inet" && slices.Contains(iptablesTables, c.Table)
}

// inChain is how the comments begin of rules in others' chains.
const inChain = "bridgeveth "

// MissingChains looks for the rules that let packets through chains of others, first in
// them:
//
//	iifname BRIDGE counter accept
//	oifname BRIDGE counter accept
//
// What was put ahead of them since stays there, unless it denies everything.
func MissingChains(n *netns.Namespace, net *plan.Network) (differences []plan.Difference, err error) {
	for _, chain := range net.ForwardChains {
		exists, err := nft.HasChain(n, chainFamily(chain), chain.Table, chain.Name)
		if err != nil {
			return nil, err
		}
		if !exists {
			return nil, fmt.Errorf("forwardChains: nf_tables has no chain %s: %w", chain, ErrNoChain)
		}
		var wanted []wayIn
		for _, link := range net.Links() { // each goes ahead of the one before
			wanted = append(wanted, wayIn{link, expr.MetaKeyOIFNAME}, wayIn{link, expr.MetaKeyIIFNAME})
		}
		missing, err := missingIn(n, chain, wanted)
		if err != nil {
			return nil, err
		}
		for _, w := range missing {
			differences = append(differences, plan.Difference{
				What:    fmt.Sprintf("rule for packets of %s, %s, in chain %s", w.link, nft.Direction(w.key), chain),
				Restore: func() error { return acceptIn(n, chain, w.comment(), nft.InterfaceIs(w.key, expr.CmpOpEq, w.link)) },
			})
		}
	}
	return differences, nil
}

// wayIn is one way that packets of a link go, for which there is a rule in a chain of others.
type wayIn struct {
	link string
	key  expr.MetaKey
}

func (w wayIn) comment() string { return inChain + w.link + " " + nft.Direction(w.key) }

// missingIn returns the ways without a rule ahead of whatever denies everything in the chain. It
// reads no further than it has to: what others have behind our rules costs nothing.
func missingIn(n *netns.Namespace, chain plan.Chain, wanted []wayIn) ([]wayIn, error) {
	return netns.Dump(func() ([]wayIn, error) {
		missing := slices.Clone(wanted)
		err := nft.EachRule(n, chainFamily(chain), chain.Table, chain.Name, func(rule netns.Attrs) bool {
			missing = slices.DeleteFunc(missing, func(w wayIn) bool { return w.comment() == nft.Comment(rule) })
			return len(missing) > 0 && !deniesAll(rule)
		})
		return missing, err
	})
}

// ErrNoChain says that a chain is not there, as when its table was not loaded yet.
var ErrNoChain = errors.New("it has to be loaded before containers start")

// called finds a rule by its comment.
func called(comment string) func(netns.Attrs) bool {
	return func(rule netns.Attrs) bool { return nft.Comment(rule) == comment }
}

// deniesAll says whether a rule denies all that gets to it.
func deniesAll(rule netns.Attrs) bool {
	_, denies := effect(rule.Get(unix.NFTA_RULE_EXPRESSIONS))
	return denies
}

// acceptIn adds a rule at the top of somebody else's chain, or moves it ahead of the first
// that denies everything.
func acceptIn(n *netns.Namespace, chain plan.Chain, comment string, match []expr.Any) error {
	dumped, err := nft.Rules(n, chainFamily(chain), chain.Table, chain.Name)
	if err != nil {
		return err
	}
	c := nft.NewChange(&nftables.Table{Name: chain.Table, Family: nft.Family(chainFamily(chain))})
	rule := nft.Rule{Chain: chain.Name, Comment: comment, Exprs: slices.Concat(match, nft.Verdict(expr.VerdictAccept)), First: true}
	for _, old := range slices.DeleteFunc(slices.Clone(dumped), func(rule netns.Attrs) bool { return !called(comment)(rule) }) {
		c.DeleteRules(chain.Name, []uint64{nft.Handle(old)})
		if at := slices.IndexFunc(dumped, deniesAll); at >= 0 {
			rule.At = nft.Handle(dumped[at])
		}
	}
	c.AddRule(rule)
	if err := c.Send(n, nft.AnyGeneration); err != nil {
		return fmt.Errorf("add a rule to chain %s: %w", chain, err)
	}
	return nil
}

// DeleteFromChains takes back the rules of a bridge from all chains of others, whether
// its network still names them or not. The tables that iptables has besides filter are no place
// for such rules, and may be large.
func DeleteFromChains(n *netns.Namespace, bridge string) error {
	tables, err := nftTables(n)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if byIPTables(t) && t.Table != filterTable || owner(t) == OwnerUs {
			continue
		}
		rules, err := nft.Rules(n, chainFamily(t), t.Table, "")
		if err != nil {
			return err
		}
		c := nft.NewChange(&nftables.Table{Name: t.Table, Family: nft.Family(chainFamily(t))})
		for _, rule := range rules {
			link, ours := strings.CutPrefix(nft.Comment(rule), inChain)
			link, _, _ = strings.Cut(link, " ")
			if ours {
				if ours, err = bridges.IsBridgeOrVLAN(n, link, bridge); err != nil {
					return err
				}
			}
			if ours {
				c.DeleteRules(rule.Text(unix.NFTA_RULE_CHAIN), []uint64{nft.Handle(rule)})
			}
		}
		if err := c.Send(n, nft.AnyGeneration); err != nil {
			return fmt.Errorf("take rules of %s out of others' chains: %w", bridge, err)
		}
	}
	return nil
}
