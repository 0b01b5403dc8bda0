package setup

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// Chain is a chain of nf_tables, of somebody else's.
type Chain struct {
	Family      string // ip, ip6 or inet
	Table, Name string
}

// ParseChain reads a chain in the words of nft(8): FAMILY TABLE CHAIN.
func ParseChain(text string) (Chain, error) {
	words := strings.Fields(text)
	if len(words) != 3 || !slices.Contains([]string{"ip", "ip6", "inet"}, words[0]) {
		return Chain{}, fmt.Errorf("%q is no chain; write one as \"inet filter forward\": family (ip, ip6 or inet), table, chain", text)
	}
	return Chain{words[0], words[1], words[2]}, nil
}

// String is the chain as nft(8) writes it, and ParseChain reads it.
func (c Chain) String() string { return strings.Join([]string{c.Family, c.Table, c.Name}, " ") }

// family is a Chain's, as the kernel counts them.
func (c Chain) family() int {
	return map[string]int{"ip": unix.AF_INET, "ip6": unix.AF_INET6, "inet": familyInet}[c.Family]
}

// byIPTables says whether iptables-nft keeps the chain.
func (c Chain) byIPTables() bool {
	return c.Family != "inet" && slices.Contains(iptablesTables, c.Table)
}

// inChain is how the comments begin of rules in others' chains.
const inChain = "bridgeveth "

// chainLacks looks for the rules that let packets through chains of others, first in
// them:
//
//	iifname BRIDGE counter accept
//	oifname BRIDGE counter accept
//
// What was put ahead of them since stays there, unless it denies everything.
func (n *Namespace) chainLacks(net *Network) (lacks []lack, err error) {
	for _, chain := range net.ForwardChains {
		exists, err := n.hasNFTChain(chain.family(), chain.Table, chain.Name)
		if err != nil {
			return nil, err
		}
		if !exists {
			return nil, fmt.Errorf("forwardChains: nf_tables has no chain %s: %w", chain, ErrNoChain)
		}
		var wanted []wayIn
		for _, link := range net.links() { // each goes ahead of the one before
			wanted = append(wanted, wayIn{link, expr.MetaKeyOIFNAME}, wayIn{link, expr.MetaKeyIIFNAME})
		}
		missing, err := n.missingIn(chain, wanted)
		if err != nil {
			return nil, err
		}
		for _, w := range missing {
			lacks = append(lacks, lack{
				what: fmt.Sprintf("rule for packets of %s, %s, in chain %s", w.link, way(w.key), chain),
				mend: func() error { return n.acceptIn(chain, w.comment(), interfaceIs(w.key, expr.CmpOpEq, w.link)) },
			})
		}
	}
	return lacks, nil
}

// wayIn is one way that packets of a link go, for which there is a rule in a chain of others.
type wayIn struct {
	link string
	key  expr.MetaKey
}

func (w wayIn) comment() string { return inChain + w.link + " " + way(w.key) }

// missingIn returns the ways without a rule ahead of whatever denies everything in the chain. It
// reads no further than it has to: what others have behind our rules costs nothing.
func (n *Namespace) missingIn(chain Chain, wanted []wayIn) ([]wayIn, error) {
	return dump(func() ([]wayIn, error) {
		missing := slices.Clone(wanted)
		err := n.eachRule(chain.family(), chain.Table, chain.Name, func(rule attrs) bool {
			missing = slices.DeleteFunc(missing, func(w wayIn) bool { return w.comment() == ruleComment(rule) })
			return len(missing) > 0 && !deniesAll(rule)
		})
		return missing, err
	})
}

// ErrNoChain says that a chain is not there, as when its table was not loaded yet.
var ErrNoChain = errors.New("it has to be loaded before containers start")

// called finds a rule by its comment.
func called(comment string) func(attrs) bool {
	return func(rule attrs) bool { return ruleComment(rule) == comment }
}

// deniesAll says whether a rule denies all that gets to it.
func deniesAll(rule attrs) bool {
	_, denies := effect(rule.get(unix.NFTA_RULE_EXPRESSIONS))
	return denies
}

// acceptIn adds a rule at the top of somebody else's chain, or moves it ahead of the first
// that denies everything.
func (n *Namespace) acceptIn(chain Chain, comment string, match []expr.Any) error {
	dumped, err := n.dumpChain(chain.family(), chain.Table, chain.Name)
	if err != nil {
		return err
	}
	c, err := n.nft()
	if err != nil {
		return err
	}
	t := &nftables.Table{Name: chain.Table, Family: nftFamily(chain.family())}
	rule := &nftables.Rule{
		Table: t, Chain: &nftables.Chain{Name: chain.Name, Table: t}, Exprs: slices.Concat(match, verdict(expr.VerdictAccept)),
		UserData: userdata.AppendString(nil, userdata.TypeComment, comment),
	}
	for _, old := range slices.DeleteFunc(slices.Clone(dumped), func(rule attrs) bool { return !called(comment)(rule) }) {
		err = errors.Join(err, deleteRules(c, rule.Chain, []uint64{ruleHandle(old)}))
		if at := slices.IndexFunc(dumped, deniesAll); at >= 0 {
			rule.Position = ruleHandle(dumped[at])
		}
	}
	c.InsertRule(rule)
	if err := errors.Join(err, c.Flush()); err != nil {
		return fmt.Errorf("add a rule to chain %s: %w", chain, err)
	}
	return nil
}

// deleteFromChains takes back the rules of a bridge from all chains of others, whether
// its network still names them or not. The tables that iptables has besides filter are no place
// for such rules, and may be large.
func (n *Namespace) deleteFromChains(bridge string) error {
	tables, err := n.nftTables()
	if err != nil {
		return err
	}
	var c *nftables.Conn
	for _, t := range tables {
		if t.byIPTables() && t.Table != filterTable || t.owner() == OwnerUs {
			continue
		}
		rules, err := n.dumpChain(t.family(), t.Table, "")
		if err != nil {
			return err
		}
		for _, rule := range rules {
			link, ours := strings.CutPrefix(ruleComment(rule), inChain)
			link, _, _ = strings.Cut(link, " ")
			if !ours || !n.belongs(link, bridge) {
				continue
			}
			if c, err = n.nft(); err != nil {
				return err
			}
			in := &nftables.Table{Name: t.Table, Family: nftFamily(t.family())}
			err := c.DelRule(&nftables.Rule{
				Table: in, Chain: &nftables.Chain{Name: rule.text(unix.NFTA_RULE_CHAIN), Table: in},
				Handle: ruleHandle(rule),
			})
			if err != nil {
				return err
			}
		}
	}
	if c == nil {
		return nil
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("take rules of %s out of others' chains: %w", bridge, err)
	}
	return nil
}
