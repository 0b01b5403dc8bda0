package ownrules

import (
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/elements"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// ownRule is a rule in one of our tables. The comment, which nft(8) shows, is unique in the chain. If the rule
// belongs to one bridge, the comment begins with the name of that bridge.
type ownRule struct {
	chain   chain
	comment string
	exprs   []expr.Any
	first   bool // the rule must come before the other rules of the chain
}

// feature is a group of rules that a bridge needs, with the chains and sets that the rules refer to. If one of
// the rules is missing, one transaction adds all of them again.
type feature struct {
	what    string // names the feature in errors
	family  int
	shared  []chain   // chains whose rules all belong to this feature and are the same for all bridges
	sets    []nft.Set // sets that the rules refer to; addFeature adds them if they do not exist
	rules   []ownRule
	devices []string    // the devices of the flowtable, which addFeature adds if it does not exist
	former  [][]ownRule // forms of the group in older versions of bridgeveth; their rules are known by chain and comment, and addFeature deletes them

	elements func(*netns.Namespace) ([]elements.Element, error) // elements of new sets; addFeature ignores those whose set exists already; nil means none
	restore  func(*netns.Namespace) error                       // adds the rules; nil means addFeature
}

// features returns the features (groups of rules) that a network needs, without duplicates, in the order in
// which they can be added. The parameter known is as in addHostPorts; nil means that no attachments are known.
func features(net *plan.Network, known func() ([]*plan.Port, error)) (list []feature) {
	add := func(f feature) {
		if !slices.ContainsFunc(list, func(other feature) bool { return other.what == f.what }) {
			list = append(list, f)
		}
	}
	for _, subnet := range net.Masquerade {
		add(masquerade(net, subnet))
		for _, to := range unmasqueraded(net, subnet) {
			add(masqueradeNot(net, subnet, to))
		}
	}
	for _, subnet := range net.HostPorts {
		f := hostPortFeature(net, subnet)
		if known != nil {
			f.restore = func(n *netns.Namespace) error { return addHostPorts(n, f, known) }
		}
		add(f)
	}
	if net.Guarded {
		add(guardFeature(net))
	}
	return list
}

// MissingRules compares our tables with the plan of a network, and returns a difference for each missing
// feature, policy or fast path. It reads the table of each family once. The parameter known is as in features.
func MissingRules(n *netns.Namespace, net *plan.Network, known func() ([]*plan.Port, error)) (missing []plan.Difference, err error) {
	features := features(net, known)
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		mine := slices.DeleteFunc(slices.Clone(features), func(f feature) bool { return f.family != family })
		if len(mine) == 0 && !net.Has(family) {
			continue
		}
		present, err := Rules(n, family)
		if err != nil {
			return nil, err
		}
		for _, f := range mine {
			if !present.have(f.rules) {
				former := slices.ContainsFunc(f.former, present.have)
				restore := f.restore
				if restore == nil {
					restore = func(n *netns.Namespace) error { return addFeature(n, f) }
				}
				missing = append(missing, plan.Difference{What: f.what, Restore: func() error { return restore(n) }, Former: former})
			}
		}
		if net.Has(family) {
			for _, p := range []policy{IngressPolicy(net), inboundPolicy(net), markPolicy(net)} {
				missing = append(missing, ComparePolicy(n, net, family, p, present[p.Chain.Name])...)
			}
			found, err := missingFastPath(n, net, family, present[fastPath.Name])
			if err != nil {
				return nil, err
			}
			missing = append(missing, found...)
		}
	}
	return missing, nil
}

// foundRules holds the handles of existing rules, by chain and comment. Several rules may have the same
// comment.
type foundRules map[string]map[string][]uint64

func (found foundRules) have(rules []ownRule) bool {
	return !slices.ContainsFunc(rules, func(r ownRule) bool { return len(found[r.chain.Name][r.comment]) == 0 })
}

// formatChain is a chain that only later versions of bridgeveth add to a table: if they change the table in a
// way that this version must not touch, they add this chain with a rule whose comment is the number of the format.
const formatChain = "format"

// Rules returns the rules with a comment in our table of a family. If a later version has written the table, the
// error is plan.ErrNewer.
func Rules(n *netns.Namespace, family int) (foundRules, error) {
	dumped, err := nft.Rules(n, family, nft.OwnTable, "")
	found := foundRules{}
	for _, rule := range dumped {
		chain, comment := rule.Text(unix.NFTA_RULE_CHAIN), nft.Comment(rule)
		if chain == formatChain {
			return nil, fmt.Errorf("nftables table %s: %w", nft.OwnTable, plan.ErrNewer)
		}
		if comment == "" {
			continue
		}
		if found[chain] == nil {
			found[chain] = map[string][]uint64{}
		}
		found[chain][comment] = append(found[chain][comment], nft.Handle(rule))
	}
	return found, err
}

// addFeature deletes the rules of a feature and adds them again, in one transaction. It also creates the table
// and the sets if they do not exist. If another program changes nf_tables meanwhile, addFeature starts again.
func addFeature(n *netns.Namespace, f feature) error {
	err := nft.Modify(n, table(f.family), func(c *nft.Change) error { return replaceFeature(n, c, f) })
	if err != nil {
		return fmt.Errorf("add %s: %w", f.what, err)
	}
	return nil
}

// replaceFeature makes the transaction of addFeature.
func replaceFeature(n *netns.Namespace, c *nft.Change, f feature) error {
	present, err := Rules(n, f.family)
	if err != nil {
		return err
	}
	t := table(f.family)
	c.AddTable()
	if len(f.devices) > 0 {
		c.AddFlowtable(flowtable, f.devices)
	}
	for _, chain := range f.shared {
		c.AddChain(chain.in(t))
		c.FlushChain(chain.Name)
	}
	if err := addSets(n, c, f); err != nil {
		return err
	}
	for _, r := range slices.Concat(append(f.former, f.rules)...) {
		if !slices.Contains(f.shared, r.chain) {
			c.DeleteRules(r.chain.Name, present[r.chain.Name][r.comment])
			delete(present[r.chain.Name], r.comment) // a rule with this chain and comment may be in f.rules and in f.former
		}
	}
	addRules(c, t, f.rules...)
	return nil
}

// addSets adds the sets of a feature that do not exist, with their elements.
func addSets(n *netns.Namespace, c *nft.Change, f feature) error {
	created := map[string]bool{}
	for _, s := range f.sets {
		exists, err := elements.HasSet(n, f.family, s.Name)
		if err != nil {
			return err
		}
		if !exists {
			c.AddSet(s)
			created[s.Name] = true
		}
	}
	if f.elements == nil || len(created) == 0 {
		return nil
	}
	list, err := f.elements(n)
	if err != nil {
		return err
	}
	c.Append(elements.Batch(nil, slices.DeleteFunc(list, func(e elements.Element) bool { return !created[e.Set] })))
	return nil
}
