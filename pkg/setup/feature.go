package setup

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ownRule is a rule of ours. Its comment, which nft(8) shows, tells it from the others of
// its chain, and begins with the bridge that it is of.
type ownRule struct {
	chain   chain
	comment string
	exprs   []expr.Any
	first   bool // ahead of the others
}

// feature is something that a bridge needs of our table: rules, and what they refer to. It
// is made in one transaction, anew where one of the rules is missing.
type feature struct {
	what   string
	family int
	shared []chain                               // whose rules are all among its, the same for each bridge
	sets   func(*nftables.Table) []*nftables.Set // that rules refer to, added where they are absent; nil for none
	rules  []ownRule
	former []ownRule // what an older build made of it, by chain and comment; these take its place
}

// features lists what a network needs, each once, in the order in which it can be made.
func (net *Network) features() (list []feature) {
	add := func(f feature) {
		if !slices.ContainsFunc(list, func(other feature) bool { return other.what == f.what }) {
			list = append(list, f)
		}
	}
	for _, subnet := range net.Masquerade {
		add(net.masquerade(subnet))
		for _, to := range net.keptFrom(subnet) {
			add(net.masqueradeNot(subnet, to))
		}
	}
	for _, subnet := range net.HostPorts {
		add(net.publishing(subnet))
	}
	if net.Guarded {
		add(net.guarding())
	}
	return list
}

// tableLacks compares our tables with what a network needs of them, by one dump for each
// family.
func (n *Namespace) tableLacks(net *Network) (lacks []lack, err error) {
	features := net.features()
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		mine := slices.DeleteFunc(slices.Clone(features), func(f feature) bool { return f.family != family })
		if len(mine) == 0 && !net.has(family) {
			continue
		}
		present, err := n.ownRules(family)
		if err != nil {
			return nil, err
		}
		for _, f := range mine {
			if !present.have(f.rules) {
				former := len(f.former) > 0 && present.have(f.former)
				lacks = append(lacks, lack{what: f.what, mend: func() error { return n.addFeature(f) }, newer: former})
			}
		}
		if net.has(family) {
			for _, p := range []policy{net.ingressPolicy(), net.inboundPolicy(), net.markPolicy()} {
				lacks = append(lacks, n.compare(net, family, p, present[p.chain.name])...)
			}
		}
	}
	return lacks, nil
}

// policy is what a network's configuration says about something, in rules of one chain:
// the ones that are there take the place of those before, none of all of them.
type policy struct {
	chain chain
	name  string // that the rules' comments begin with, after the network's
	rules []policyRule
}

type policyRule struct {
	value string // that the rule's comment ends with
	exprs []expr.Any
}

func (p *policy) add(value string, exprs []expr.Any) {
	p.rules = append(p.rules, policyRule{value, exprs})
}

// compare compares the rules that are there of a chain with a policy of the network.
func (n *Namespace) compare(net *Network, family int, p policy, present map[string][]uint64) (lacks []lack) {
	wanted := map[string]bool{}
	for _, rule := range p.rules {
		r := ownRule{chain: p.chain, comment: net.comment(p.name, rule.value), exprs: rule.exprs}
		if wanted[r.comment] = true; len(present[r.comment]) == 0 {
			f := feature{what: fmt.Sprintf("policy %s %s of %s", p.name, rule.value, net.RoutedBy()), family: family, rules: []ownRule{r}}
			lacks = append(lacks, lack{what: f.what, mend: func() error { return n.addFeature(f) }})
		}
	}
	for comment, handles := range present {
		if strings.HasPrefix(comment, net.comment(p.name)+" ") && !wanted[comment] {
			lacks = append(lacks, lack{
				what: fmt.Sprintf("policy %s as configured, instead of the rule %q", p.name, comment),
				mend: func() error { return n.deleteOwn(family, p.chain, handles) },
			})
		}
	}
	return lacks
}

// foundRules are the handles of rules that are there, by chain and comment. There may be
// several of one comment.
type foundRules map[string]map[string][]uint64

// have says whether all the rules are there.
func (found foundRules) have(rules []ownRule) bool {
	return !slices.ContainsFunc(rules, func(r ownRule) bool { return len(found[r.chain.name][r.comment]) == 0 })
}

// ownRules lists the rules of our table in a family that have a comment.
func (n *Namespace) ownRules(family int) (foundRules, error) {
	dumped, err := n.dumpChain(family, ownTable, "")
	found := foundRules{}
	for _, rule := range dumped {
		chain, comment := rule.text(unix.NFTA_RULE_CHAIN), ruleComment(rule)
		if comment == "" {
			continue
		}
		if found[chain] == nil {
			found[chain] = map[string][]uint64{}
		}
		found[chain][comment] = append(found[chain][comment], ruleHandle(rule))
	}
	return found, err
}

// addFeature adds a feature, in the place of what is there of it, and the table where it
// is absent, in one transaction.
func (n *Namespace) addFeature(f feature) error {
	present, err := n.ownRules(f.family)
	if err != nil {
		return err
	}
	c, err := n.nft()
	if err != nil {
		return err
	}
	t := c.AddTable(table(f.family))
	for _, chain := range f.shared {
		c.FlushChain(c.AddChain(chain.in(t)))
	}
	if f.sets != nil {
		err = n.addSets(c, f.sets(t))
	}
	for _, r := range slices.Concat(f.rules, f.former) {
		if !slices.Contains(f.shared, r.chain) {
			err = errors.Join(err, deleteRules(c, r.chain.in(t), present[r.chain.name][r.comment]))
			delete(present[r.chain.name], r.comment) // it may be in both lists
		}
	}
	addRules(c, t, f.rules...)
	if err := errors.Join(err, c.Flush()); err != nil {
		return fmt.Errorf("add %s: %w", f.what, err)
	}
	return nil
}

// addSets has the next transaction add the sets that are absent. The kernel refuses to add a set
// again with other flags (nft_set_is_same in net/netfilter/nf_tables_api.c), and a set that nft(8)
// has loaded lacks NFT_SET_CONCAT.
func (n *Namespace) addSets(c *nftables.Conn, sets []*nftables.Set) error {
	for _, s := range sets {
		found, err := n.exists(unix.NFT_MSG_GETSET, int(s.Table.Family),
			nl.NewRtAttr(unix.NFTA_SET_TABLE, nl.ZeroTerminated(s.Table.Name)), nl.NewRtAttr(unix.NFTA_SET_NAME, nl.ZeroTerminated(s.Name)))
		if err == nil && !found {
			err = c.AddSet(s, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
