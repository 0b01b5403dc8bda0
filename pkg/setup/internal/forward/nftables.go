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
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/xtables"
)

// chainFamily returns the kernel's number for the family of a chain.
func chainFamily(c plan.Chain) int {
	return map[string]int{"ip": unix.AF_INET, "ip6": unix.AF_INET6, "inet": nft.FamilyINet}[c.Family]
}

// byIPTables reports whether a chain is in a table of iptables-nft.
func byIPTables(c plan.Chain) bool {
	return c.Family != "inet" && slices.Contains(iptablesTables, c.Table)
}

// commentPrefix is the beginning of the comment of each rule that we add to a chain of another
// program.
const commentPrefix = "bridgeveth "

// MissingChains returns a difference for each missing rule in the chains of Network.ForwardChains.
// Each chain needs two rules for each link:
//
//	iifname BRIDGE counter accept
//	oifname BRIDGE counter accept
//
// Rules of other programs may come before these two, except a rule that denies all packets.
func MissingChains(n *netns.Namespace, net *plan.Network) (differences []plan.Difference, err error) {
	for _, chain := range net.ForwardChains {
		exists, err := nft.HasChain(n, chainFamily(chain), chain.Table, chain.Name)
		if err != nil {
			return nil, err
		}
		if !exists {
			return nil, fmt.Errorf("forwardChains: nf_tables has no chain %s: %w", chain, ErrNoChain)
		}
		var wanted []direction
		for _, link := range net.Links() { // in this order, because each rule is inserted before the previous one
			wanted = append(wanted, direction{link, expr.MetaKeyOIFNAME}, direction{link, expr.MetaKeyIIFNAME})
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

// direction selects the packets that arrive on a link (MetaKeyIIFNAME), or leave through it
// (MetaKeyOIFNAME). A chain of another program needs a rule for each direction.
type direction struct {
	link string
	key  expr.MetaKey
}

func (w direction) comment() string { return commentPrefix + w.link + " " + nft.Direction(w.key) }

// missingIn looks in a chain for our rules for the directions in the parameter wanted. It returns
// each direction that has no rule before the first rule that denies all packets. It stops reading
// when it has found all wanted rules, because the chain may have many more rules.
func missingIn(n *netns.Namespace, chain plan.Chain, wanted []direction) ([]direction, error) {
	return netns.Dump(func() ([]direction, error) {
		missing := slices.Clone(wanted)
		err := nft.EachRule(n, chainFamily(chain), chain.Table, chain.Name, func(rule netns.Attrs) bool {
			missing = slices.DeleteFunc(missing, func(w direction) bool { return w.comment() == nft.Comment(rule) })
			return len(missing) > 0 && !deniesAll(rule)
		})
		return missing, err
	})
}

// ErrNoChain is returned if a chain does not exist, for instance because its table is not loaded
// yet.
var ErrNoChain = errors.New("load its table before containers start")

// hasComment returns a function that reports whether a rule has this comment.
func hasComment(comment string) func(netns.Attrs) bool {
	return func(rule netns.Attrs) bool { return nft.Comment(rule) == comment }
}

// deniesAll reports whether a rule denies every packet that reaches it.
func deniesAll(rule netns.Attrs) bool {
	_, denies := effect(rule.Get(unix.NFTA_RULE_EXPRESSIONS))
	return denies
}

// acceptIn adds an accept rule at the top of a chain of another program. If our rule already
// exists, but after a rule that denies all packets, acceptIn moves our rule before that rule.
func acceptIn(n *netns.Namespace, chain plan.Chain, comment string, match []expr.Any) error {
	table := &nftables.Table{Name: chain.Table, Family: nft.Family(chainFamily(chain))}
	err := nft.Modify(n, table, func(c *nft.Change) error {
		dumped, err := nft.Rules(n, chainFamily(chain), chain.Table, chain.Name)
		if err != nil {
			return err
		}
		rule := nft.Rule{Chain: chain.Name, Comment: comment, Exprs: slices.Concat(match, nft.Verdict(expr.VerdictAccept)), First: true}
		for _, old := range slices.DeleteFunc(slices.Clone(dumped), func(rule netns.Attrs) bool { return !hasComment(comment)(rule) }) {
			c.DeleteRules(chain.Name, []uint64{nft.Handle(old)})
			if at := slices.IndexFunc(dumped, deniesAll); at >= 0 {
				rule.At = nft.Handle(dumped[at])
			}
		}
		c.AddRule(rule)
		return nil
	})
	if err != nil {
		return fmt.Errorf("add a rule to chain %s: %w", chain, err)
	}
	return nil
}

// DeleteFromChains deletes our rules for a bridge from the chains of all other programs, even from
// chains that the network's configuration no longer names. Of the tables of iptables, it reads only
// filter, because the other tables may be large and never have such rules.
func DeleteFromChains(n *netns.Namespace, bridge string) error {
	tables, err := nftTables(n)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if byIPTables(t) && t.Table != xtables.Filter || owner(t) == OwnerUs {
			continue
		}
		table := &nftables.Table{Name: t.Table, Family: nft.Family(chainFamily(t))}
		if err := nft.Modify(n, table, func(c *nft.Change) error { return removeFrom(n, c, t, bridge) }); err != nil {
			return fmt.Errorf("delete rules of bridge %s from foreign chains: %w", bridge, err)
		}
	}
	return nil
}

// removeFrom makes the transaction delete our rules for a bridge from all chains of a table.
func removeFrom(n *netns.Namespace, c *nft.Change, t plan.Chain, bridge string) error {
	rules, err := nft.Rules(n, chainFamily(t), t.Table, "")
	for _, rule := range rules {
		link, ours := strings.CutPrefix(nft.Comment(rule), commentPrefix)
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
	return err
}
