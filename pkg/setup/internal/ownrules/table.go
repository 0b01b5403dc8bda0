package ownrules

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/localnet"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
)

// chain is a chain in our tables. Its name must not be a keyword of nft(8): nft(8) could not load a saved
// ruleset with such a name.
type chain struct {
	Name     string
	kind     nftables.ChainType // "" for a chain without a hook
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
}

// The chains of our tables.
var (
	postrouting   = chain{"postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource}
	prerouting    = chain{"prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest}
	output        = chain{"locally", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest}
	toHostPorts   = chain{Name: "hostports"}
	beforeNAT     = chain{"arriving", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw}
	answers       = chain{"answers", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRef(*nftables.ChainPriorityNATDest + 1)}
	ForwardFilter = chain{"forwarded", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter}
	marking       = chain{"marking", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityRaw}
)

// chainsOf returns the chains of a family in which each rule belongs to a single bridge.
func chainsOf(family int) []chain {
	if family == unix.AF_BRIDGE {
		return []chain{beforeNAT}
	}
	return []chain{postrouting, beforeNAT, ForwardFilter, marking, fastPath}
}

func table(family int) *nftables.Table {
	return &nftables.Table{Name: nft.OwnTable, Family: nft.Family(family)}
}

func (c chain) in(t *nftables.Table) *nftables.Chain {
	return &nftables.Chain{Name: c.Name, Table: t, Type: c.kind, Hooknum: c.hook, Priority: c.priority}
}

func addRules(c *nft.Change, t *nftables.Table, rules ...ownRule) {
	for _, r := range rules {
		c.AddChain(r.chain.in(t))
		c.AddRule(nft.Rule{Chain: r.chain.Name, Comment: r.comment, Exprs: r.exprs, First: r.first})
	}
}

// DeleteRules deletes all rules of a bridge from our tables. If no other bridge has rules in a table, it
// deletes the table with all its sets. Otherwise the sets stay. hostports.Unpublish and UnguardPort
// delete the elements of a single port.
func DeleteRules(n *netns.Namespace, bridge string) error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		err := nft.Modify(n, table(family), func(c *nft.Change) error { return removeRules(n, c, family, bridge) })
		if err != nil {
			errs = append(errs, fmt.Errorf("delete the rules of %s: %w", bridge, err))
		}
	}
	return errors.Join(errs...)
}

func removeRules(n *netns.Namespace, c *nft.Change, family int, bridge string) error {
	present, err := Rules(n, family)
	if err != nil {
		return err
	}
	mine := map[chain][]uint64{}
	others, loopback := false, false
	for _, chain := range chainsOf(family) {
		for comment, handles := range present[chain.Name] {
			if strings.HasPrefix(comment, bridge+" ") {
				mine[chain] = append(mine[chain], handles...)
				loopback = loopback || strings.HasSuffix(comment, " "+loopbackRule)
			} else {
				others = true
			}
		}
	}
	if len(mine) == 0 {
		return nil
	}
	if loopback { // one of these rules is the guard of the host's loopback in the form of an older version of bridgeveth
		err := n.SetSysctlIfAny(fmt.Sprintf(localnet.Sysctl, bridge), "0")
		if err != nil && !errors.Is(err, unix.EROFS) { // EROFS means that /proc/sys is read-only, so another program has set the sysctl
			return err
		}
	}
	if !others {
		c.DeleteTable()
		return nil
	}
	for chain, handles := range mine {
		if chain == fastPath {
			removeFastPath(c, present[chain.Name], bridge+" ")
			continue
		}
		c.DeleteRules(chain.Name, handles)
	}
	return nil
}

// deleteOwn deletes the rules with a comment from one of our chains.
func deleteOwn(n *netns.Namespace, family int, from chain, comment string) error {
	err := nft.Modify(n, table(family), func(c *nft.Change) error {
		present, err := Rules(n, family)
		c.DeleteRules(from.Name, present[from.Name][comment])
		return err
	})
	if err != nil {
		return fmt.Errorf("delete rules of chain %s: %w", from.Name, err)
	}
	return nil
}
