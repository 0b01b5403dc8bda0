package setup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// ownTable is our table: of the families ip and ip6 for address translation and what
// is not to be forwarded, of the family bridge for what no port may send. What it
// drops is dropped, whatever rules others have.
const ownTable = "bridgeveth"

// chain is one of our table's. No name is a word of nft(8) itself: a saved ruleset
// has to load again.
type chain struct {
	name     string
	kind     nftables.ChainType // "" for one that is only jumped to
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
}

var (
	postrouting   = chain{"postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource}
	prerouting    = chain{"prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest}
	output        = chain{"locally", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest}
	toHostPorts   = chain{name: "hostports"}
	beforeNAT     = chain{"arriving", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw}
	forwardFilter = chain{"forwarded", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter}
	marking       = chain{"marking", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityRaw}
)

// chainsOf lists those with rules of bridges.
func chainsOf(family int) []chain {
	if family == unix.AF_BRIDGE {
		return []chain{beforeNAT}
	}
	return []chain{postrouting, beforeNAT, forwardFilter, marking}
}

// ownRule is a rule of ours. Its comment, which nft(8) shows, begins with the bridge.
type ownRule struct {
	chain   chain
	comment string
	exprs   []expr.Any
	first   bool // ahead of the others
}

// feature is something that a bridge needs of our table. It is made in one
// transaction: where the rule called marker is in the chain, all of it is there.
type feature struct {
	chain        chain
	marker, what string
	family       int
	add          func(c *nftables.Conn, t *nftables.Table) error
}

// features lists what a network needs, in the order in which it can be made.
func (net *Network) features() (list []feature) {
	for _, subnet := range net.Masquerade {
		list = append(list, net.masquerade(subnet))
		for _, to := range net.MasqueradeNot {
			if to.Addr().Is4() == subnet.Addr().Is4() {
				list = append(list, net.masqueradeNot(subnet, to))
			}
		}
	}
	for _, subnet := range net.HostPorts {
		list = append(list, net.publishing(subnet))
	}
	if net.Guarded {
		list = append(list, net.guarding())
	}
	return list
}

// featureLacks looks for the features of a network.
func (n *Namespace) featureLacks(net *Network) (lacks []lack, err error) {
	type place struct {
		family int
		chain  string
	}
	present := map[place]map[string]uint64{}
	for _, f := range net.features() {
		at := place{f.family, f.chain.name}
		if present[at] == nil {
			if present[at], err = n.ownRules(f.family, f.chain); err != nil {
				return nil, err
			}
		}
		if present[at][f.marker] == 0 {
			lacks = append(lacks, lack{f.what, func() error { return n.addFeature(f) }})
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

// policyLacks compares the rules that are there with the policies of the network.
func (n *Namespace) policyLacks(net *Network) (lacks []lack, err error) {
	for _, family := range net.families() {
		present := map[string]map[string]uint64{} // by chain and comment
		for _, p := range []policy{net.ingressPolicy(), net.inboundPolicy(), net.markPolicy()} {
			if present[p.chain.name] == nil {
				if present[p.chain.name], err = n.ownRules(family, p.chain); err != nil {
					return nil, err
				}
			}
			lacks = append(lacks, n.compare(net, family, p, present[p.chain.name])...)
		}
	}
	return lacks, nil
}

func (n *Namespace) compare(net *Network, family int, p policy, present map[string]uint64) (lacks []lack) {
	wanted := map[string]bool{}
	for _, rule := range p.rules {
		r := ownRule{chain: p.chain, comment: net.comment(p.name, rule.value), exprs: rule.exprs}
		if wanted[r.comment] = true; present[r.comment] == 0 {
			f := feature{
				what: fmt.Sprintf("policy %s %s of %s", p.name, rule.value, net.RoutedBy()), family: family,
				add: func(c *nftables.Conn, t *nftables.Table) error { addRules(c, t, r); return nil },
			}
			lacks = append(lacks, lack{f.what, func() error { return n.addFeature(f) }})
		}
	}
	for comment, handle := range present {
		if strings.HasPrefix(comment, net.comment(p.name)+" ") && !wanted[comment] {
			lacks = append(lacks, lack{
				fmt.Sprintf("policy %s as configured, instead of the rule %q", p.name, comment),
				func() error { return n.deleteRule(family, p.chain, handle) },
			})
		}
	}
	return lacks
}

// ownRules lists the handles of the rules of a chain of ours, by their comments.
func (n *Namespace) ownRules(family int, c chain) (map[string]uint64, error) {
	dumped, err := n.dumpChain(family, ownTable, c.name)
	found := map[string]uint64{}
	for _, rule := range dumped {
		if comment := ruleComment(rule); comment != "" {
			found[comment] = binary.BigEndian.Uint64(rule.get(unix.NFTA_RULE_HANDLE))
		}
	}
	return found, err
}

// addFeature adds a feature, and the table where it is absent, in one transaction.
func (n *Namespace) addFeature(f feature) error {
	c, err := n.nft()
	if err != nil {
		return err
	}
	err = f.add(c, c.AddTable(table(f.family)))
	if err := errors.Join(err, c.Flush()); err != nil {
		return fmt.Errorf("add %s: %w", f.what, err)
	}
	return nil
}

// table is ours in a family.
func table(family int) *nftables.Table {
	return &nftables.Table{Name: ownTable, Family: nftFamily(family)}
}

// in is the chain in a table.
func (c chain) in(t *nftables.Table) *nftables.Chain {
	return &nftables.Chain{Name: c.name, Table: t, Type: c.kind, Hooknum: c.hook, Priority: c.priority}
}

// addRules adds rules, and their chains where they are absent.
func addRules(c *nftables.Conn, t *nftables.Table, rules ...ownRule) {
	for _, r := range rules {
		rule := &nftables.Rule{Table: t, Chain: c.AddChain(r.chain.in(t)), Exprs: r.exprs}
		if r.comment != "" {
			rule.UserData = userdata.AppendString(nil, userdata.TypeComment, r.comment)
		}
		if r.first {
			c.InsertRule(rule)
		} else {
			c.AddRule(rule)
		}
	}
}

// DeleteRules takes back all that a bridge has in our tables and, with the last
// bridge, the tables: masquerade, filters, and what host ports need. The host ports of
// containers go with these, see DetachPort.
func (n *Namespace) DeleteRules(bridge string) error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		errs = append(errs, n.deleteRules(family, bridge))
	}
	return errors.Join(errs...)
}

func (n *Namespace) deleteRules(family int, bridge string) error {
	own := table(family)
	var mine []*nftables.Rule
	others, guarded := false, false
	for _, chain := range chainsOf(family) {
		rules, err := n.ownRules(family, chain)
		if err != nil {
			return err
		}
		for comment, handle := range rules {
			if strings.HasPrefix(comment, bridge+" ") {
				mine = append(mine, &nftables.Rule{Table: own, Chain: chain.in(own), Handle: handle})
				guarded = guarded || strings.HasSuffix(comment, " "+loopbackRule)
			} else {
				others = true
			}
		}
	}
	if len(mine) == 0 {
		return nil
	}
	c, err := n.nft()
	if err != nil {
		return err
	}
	if guarded { // before the rule goes that keeps the host's loopback to itself
		if err := n.setSysctlIfAny(fmt.Sprintf(sysctlLocalnet, bridge), "0"); err != nil {
			return err
		}
	}
	if others {
		for _, r := range mine {
			err = errors.Join(err, c.DelRule(r))
		}
	} else {
		c.DelTable(own)
	}
	if err := errors.Join(err, c.Flush()); err != nil {
		return fmt.Errorf("delete the rules of %s: %w", bridge, err)
	}
	return nil
}

// deleteRule deletes one rule.
func (n *Namespace) deleteRule(family int, from chain, handle uint64) error {
	c, err := n.nft()
	if err != nil {
		return err
	}
	own := table(family)
	err = c.DelRule(&nftables.Rule{Table: own, Chain: from.in(own), Handle: handle})
	if err := errors.Join(err, c.Flush()); err != nil {
		return fmt.Errorf("delete a rule of chain %s: %w", from.name, err)
	}
	return nil
}

// comment names a rule of a network: by the bridge, by which it is found again, and by the
// link that the network is routed by where that is another.
func (net *Network) comment(what ...string) string {
	return strings.Join(append(net.links(), what...), " ")
}
