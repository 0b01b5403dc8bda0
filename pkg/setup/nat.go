package setup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// ownTable is our table of the families ip and ip6: address translation, and what
// is dropped for good.
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
	// postrouting has a rule for everything that a bridge has in the table.
	postrouting   = chain{"postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource}
	prerouting    = chain{"prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest}
	output        = chain{"locally", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest}
	toHostPorts   = chain{name: "hostports"}
	beforeNAT     = chain{"arriving", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw}
	forwardFilter = chain{"forwarded", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter}
	perBridge     = []chain{postrouting, beforeNAT, forwardFilter} // those with rules of bridges
)

// ownRule is a rule of ours. Its comment, which nft(8) shows, begins with the bridge.
type ownRule struct {
	chain   chain
	comment string
	exprs   []expr.Any
	first   bool // ahead of the others
}

// feature is something that a bridge's subnet needs of our table. It is made in one
// transaction: where the rule called marker is in postrouting, all of it is there.
type feature struct {
	marker, what string
	family       int
	add          func(c *nftables.Conn, t *nftables.Table) error
}

// features lists what a network needs, in the order in which it can be made.
func (net *Network) features() (list []feature) {
	for _, subnet := range net.Masquerade {
		list = append(list, masquerade(net.Bridge, subnet))
		for _, to := range net.MasqueradeNot {
			if to.Addr().Is4() == subnet.Addr().Is4() {
				list = append(list, masqueradeNot(net.Bridge, subnet, to))
			}
		}
	}
	for _, subnet := range net.HostPorts {
		list = append(list, hostPorts(net.Bridge, subnet))
	}
	return list
}

// natLacks looks for the features of a network.
func (n *Namespace) natLacks(net *Network) (lacks []lack, err error) {
	present := map[int]map[string]uint64{}
	for _, f := range net.features() {
		if present[f.family] == nil {
			if present[f.family], err = n.ownRules(f.family, postrouting); err != nil {
				return nil, err
			}
		}
		if present[f.family][f.marker] == 0 {
			lacks = append(lacks, lack{f.what, func() error { return n.addFeature(f) }})
		}
	}
	return lacks, nil
}

// ownRules lists the handles of the rules of a chain of ours, by their comments.
func (n *Namespace) ownRules(family int, c chain) (map[string]uint64, error) {
	dumped, err := n.dumpChain(family, ownTable, c.name)
	found := map[string]uint64{}
	for _, attrs := range dumped {
		if comment, ok := userdata.GetString(attrs[unix.NFTA_RULE_USERDATA], userdata.TypeComment); ok {
			found[comment] = binary.BigEndian.Uint64(attrs[unix.NFTA_RULE_HANDLE])
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
	err = f.add(c, c.AddTable(natTable(f.family)))
	if err := errors.Join(err, c.Flush()); err != nil {
		return fmt.Errorf("add %s: %w", f.what, err)
	}
	return nil
}

func natTable(family int) *nftables.Table {
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

// DeleteNAT takes back all that a bridge has in our tables and, with the last
// bridge, the tables: masquerade, and what host ports need. The host ports of
// containers go with these, see DetachPort.
func (n *Namespace) DeleteNAT(bridge string) error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		errs = append(errs, n.deleteNAT(family, bridge))
	}
	return errors.Join(errs...)
}

func (n *Namespace) deleteNAT(family int, bridge string) error {
	all, err := n.ownRules(family, postrouting)
	if err != nil {
		return err
	}
	others, ours := false, false
	for comment := range all {
		mine := strings.HasPrefix(comment, bridge+" ")
		ours, others = ours || mine, others || !mine
	}
	if !ours {
		return nil
	}
	c, err := n.nft()
	if err != nil {
		return err
	}
	if others {
		err = n.deleteRules(c, family, bridge)
	} else {
		c.DelTable(natTable(family))
	}
	if err := errors.Join(err, c.Flush()); err != nil {
		return fmt.Errorf("delete NAT of %s: %w", bridge, err)
	}
	return nil
}

// deleteRules deletes the rules of a bridge.
func (n *Namespace) deleteRules(c *nftables.Conn, family int, bridge string) error {
	table := natTable(family)
	for _, chain := range perBridge {
		rules, err := n.ownRules(family, chain)
		if err != nil {
			return err
		}
		for comment, handle := range rules {
			if strings.HasPrefix(comment, bridge+" ") {
				err = errors.Join(err, c.DelRule(&nftables.Rule{Table: table, Chain: chain.in(table), Handle: handle}))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// comment names a rule of a bridge's subnet.
func comment(bridge string, subnet netip.Prefix, what ...string) string {
	return strings.Join(slices.Concat([]string{bridge, subnet.String()}, what), " ")
}
