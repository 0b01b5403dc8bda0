package setup

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
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
	answers       = chain{"answers", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRef(*nftables.ChainPriorityNATDest + 1)}
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
		rule := &nftables.Rule{
			Table: t, Chain: c.AddChain(r.chain.in(t)), Exprs: r.exprs, UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment),
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
		errs = append(errs, n.deleteRulesOf(family, bridge))
	}
	return errors.Join(errs...)
}

func (n *Namespace) deleteRulesOf(family int, bridge string) error {
	present, err := n.ownRules(family)
	if err != nil {
		return err
	}
	mine := map[chain][]uint64{}
	others, localnet := false, false
	for _, chain := range chainsOf(family) {
		for comment, handles := range present[chain.name] {
			if strings.HasPrefix(comment, bridge+" ") {
				mine[chain] = append(mine[chain], handles...)
				localnet = localnet || strings.HasSuffix(comment, " "+loopbackRule)
			} else {
				others = true
			}
		}
	}
	if len(mine) == 0 {
		return nil
	}
	if localnet { // an older build's guard of the host's loopback is among these rules
		err := n.setSysctlIfAny(fmt.Sprintf(sysctlLocalnet, bridge), "0")
		if err != nil && !errors.Is(err, unix.EROFS) { // read-only: it was on before us
			return err
		}
	}
	c, err := n.nft()
	if err != nil {
		return err
	}
	own := table(family)
	if others {
		for chain, handles := range mine {
			err = errors.Join(err, deleteRules(c, chain.in(own), handles))
		}
	} else {
		c.DelTable(own)
	}
	if err := errors.Join(err, c.Flush()); err != nil {
		return fmt.Errorf("delete the rules of %s: %w", bridge, err)
	}
	return nil
}

// deleteOwn deletes rules of a chain of ours.
func (n *Namespace) deleteOwn(family int, from chain, handles []uint64) error {
	c, err := n.nft()
	if err != nil {
		return err
	}
	err = deleteRules(c, from.in(table(family)), handles)
	if err := errors.Join(err, c.Flush()); err != nil {
		return fmt.Errorf("delete rules of chain %s: %w", from.name, err)
	}
	return nil
}

// comment names a rule of a network: by the bridge, by which it is found again, and by the
// link that the network is routed by where that is another.
func (net *Network) comment(what ...string) string {
	return strings.Join(append(net.links(), what...), " ")
}
