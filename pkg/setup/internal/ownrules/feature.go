package ownrules

import (
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// ownRule is a rule of one of our tables. The comment, which nft(8) shows, is unique in the chain. The
// comment of a rule that belongs to one bridge begins with the name of that bridge.
type ownRule struct {
	chain   chain
	comment string
	exprs   []expr.Any
	first   bool // above the other rules of the chain
}

// feature is a group of rules that a bridge needs, with the chains and sets that the rules refer to. If one
// of the rules is missing, all of them are made again in one transaction.
type feature struct {
	what    string // names the feature in errors
	family  int
	shared  []chain   // chains that have only rules of this feature, which are the same for all bridges
	sets    []nft.Set // sets that the rules refer to; they are added if they do not exist
	rules   []ownRule
	devices []string  // of the flowtable, which is added if it does not exist
	former  []ownRule // rules of an older build, by chain and comment; they are deleted

	restore func(*netns.Namespace) error // makes the feature; nil means addFeature
}

// features returns the features that a network needs, each once, in the order in which they can be made.
func features(net *plan.Network) (list []feature) {
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
		add(hostPortFeature(net, subnet))
	}
	if net.Guarded {
		add(guardFeature(net))
	}
	return list
}

// MissingRules compares our tables with the plan of a network. It reads each family's table once.
func MissingRules(n *netns.Namespace, net *plan.Network) (missing []plan.Difference, err error) {
	features := features(net)
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
				former := len(f.former) > 0 && present.have(f.former)
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

// have reports whether all the rules exist.
func (found foundRules) have(rules []ownRule) bool {
	return !slices.ContainsFunc(rules, func(r ownRule) bool { return len(found[r.chain.Name][r.comment]) == 0 })
}

// Rules returns the rules of our table of a family that have a comment.
func Rules(n *netns.Namespace, family int) (foundRules, error) {
	dumped, err := nft.Rules(n, family, nft.OwnTable, "")
	found := foundRules{}
	for _, rule := range dumped {
		chain, comment := rule.Text(unix.NFTA_RULE_CHAIN), nft.Comment(rule)
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

// addFeature deletes the rules of a feature and makes them again, in one transaction. It creates the table
// and the sets that do not exist.
func addFeature(n *netns.Namespace, f feature) error {
	present, err := Rules(n, f.family)
	if err != nil {
		return err
	}
	t := table(f.family)
	c := nft.NewChange(t)
	c.AddTable()
	if len(f.devices) > 0 {
		c.AddFlowtable(flowtable, f.devices)
	}
	for _, chain := range f.shared {
		c.AddChain(chain.in(t))
		c.FlushChain(chain.Name)
	}
	for _, s := range f.sets {
		exists, err := hasSet(n, f.family, s.Name)
		if err != nil {
			return err
		}
		if !exists {
			c.AddSet(s)
		}
	}
	for _, r := range slices.Concat(f.rules, f.former) {
		if !slices.Contains(f.shared, r.chain) {
			c.DeleteRules(r.chain.Name, present[r.chain.Name][r.comment])
			delete(present[r.chain.Name], r.comment) // a rule may be in both lists
		}
	}
	addRules(c, t, f.rules...)
	if err := c.Send(n, nft.AnyGeneration); err != nil {
		return fmt.Errorf("add %s: %w", f.what, err)
	}
	return nil
}

// hasSet reports whether our table has a set.
func hasSet(n *netns.Namespace, family int, name string) (bool, error) {
	return nft.Exists(n, unix.NFT_MSG_GETSET, family,
		nl.NewRtAttr(unix.NFTA_SET_TABLE, nl.ZeroTerminated(nft.OwnTable)), nl.NewRtAttr(unix.NFTA_SET_NAME, nl.ZeroTerminated(name)))
}
