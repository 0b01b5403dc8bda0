package forward

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/xtables"
)

// The functions of this file write the filter table of iptables-nft by netlink, with the
// expressions that iptables writes and reads. They start no program, so iptables need not be
// installed. They can also change a table that iptables refuses as incompatible (see
// IncompatibleChains).

// table returns the filter table in the form that the nftables library needs.
func (t filter) table() *nftables.Table {
	return &nftables.Table{Name: xtables.Filter, Family: nft.Family(t.family)}
}

// nftChain is a chain of the filter table, with its rules and the handles of the rules.
type nftChain struct {
	*nftables.Chain
	rules   []xtables.Rule
	handles []uint64
}

// listChain reads a chain. A chain that does not exist has no rules.
func listChain(n *netns.Namespace, t filter, name string) (l nftChain, err error) {
	l.Chain = &nftables.Chain{Name: name, Table: t.table()}
	dumped, err := nft.Rules(n, t.family, xtables.Filter, name)
	for _, r := range dumped {
		l.rules = append(l.rules, xtables.Parse(r.Get(unix.NFTA_RULE_EXPRESSIONS)))
		l.handles = append(l.handles, nft.Handle(r))
	}
	return l, err
}

// deleteFrom makes the transaction delete the rules that the function chosen selects.
func (l nftChain) deleteFrom(c *nft.Change, chosen func(xtables.Rule) bool) {
	var handles []uint64
	for i, r := range l.rules {
		if chosen(r) {
			handles = append(handles, l.handles[i])
		}
	}
	c.DeleteRules(l.Name, handles)
}

// ours reports whether a rule in BRIDGEVETH-FORWARD is our rule for this bridge, as bridgeveth wrote
// it, or as nft(8) has loaded it from a saved ruleset.
func ours(r xtables.Rule, bridge string) bool {
	return slices.Contains(ownRules(bridge), r) || r.Native && (r.In == bridge || r.Out == bridge)
}

// change reads FORWARD and BRIDGEVETH-FORWARD of a table, lets f fill a transaction, and sends the
// transaction. If nf_tables has changed between reading and sending, it starts again.
func change(n *netns.Namespace, t filter, f func(c *nft.Change, base, own nftChain) error) error {
	err := nft.Modify(n, t.table(), func(c *nft.Change) error {
		base, baseErr := listChain(n, t, xtables.Forward)
		own, ownErr := listChain(n, t, forwardChain)
		if err := errors.Join(baseErr, ownErr); err != nil {
			return err
		}
		return f(c, base, own)
	})
	if err != nil {
		return fmt.Errorf("change %s: %w", t, err)
	}
	return nil
}

// addNFT adds the rules for a bridge to BRIDGEVETH-FORWARD and deletes the old rules for that
// bridge. The new rules come after the jump to BRIDGEVETH-ADMIN, and before rules that other
// programs have added to the chain.
func addNFT(n *netns.Namespace, t filter, bridge string) error {
	return change(n, t, func(c *nft.Change, base, own nftChain) error {
		c.AddTable()
		if exists, err := nft.HasChain(n, t.family, xtables.Filter, xtables.Forward); err != nil { // not t.inForce, because a flush may come after the reading of t
			return err
		} else if !exists {
			base.Type, base.Hooknum, base.Priority = nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter
			c.AddChain(base.Chain)
		}
		c.AddChain(own.Chain)
		c.AddChain(&nftables.Chain{Name: adminChain, Table: t.table()})
		own.deleteFrom(c, func(r xtables.Rule) bool { return r == toAdmin || ours(r, bridge) })
		wanted := []xtables.Rule{toAdmin}
		docker, err := filter{family: t.family, forward: base.rules}.hasDocker(n) // not t.docker, for the same reason
		if err != nil {
			return err
		}
		if docker {
			wanted = append(wanted, isolationRules(bridge)...)
		}
		for _, r := range slices.Backward(append(wanted, forwardRules(bridge)...)) {
			c.AddRule(nft.Rule{Chain: own.Name, Exprs: r.Expressions(), First: true})
		}
		placeJumpNFT(c, base)
		return nil
	})
}

// placeJumpNFT moves the jump to BRIDGEVETH-FORWARD to the right place in FORWARD. It does in the
// transaction what placeJump does by running iptables.
func placeJumpNFT(c *nft.Change, base nftChain) {
	isJump := func(r xtables.Rule) bool { return r == toOwn }
	if (filter{forward: base.rules}).jumps() && count(base.rules, isJump) == 1 {
		return // rules of other programs that come before the jump stay there
	}
	base.deleteFrom(c, isJump)
	jump := nft.Rule{Chain: base.Name, Exprs: toOwn.Expressions(), First: true}
	if at := (filter{forward: base.rules}).lastBefore(); at >= 0 {
		jump.First, jump.At = false, base.handles[at]
	}
	c.AddRule(jump)
}

// removeNFT is the inverse of addNFT.
func removeNFT(n *netns.Namespace, t filter, bridge string) error {
	return change(n, t, func(c *nft.Change, base, own nftChain) error {
		return removeOwn(n, c, base, own, func(r xtables.Rule) bool { return ours(r, bridge) })
	})
}

// removeOwn makes the transaction delete the rules of BRIDGEVETH-FORWARD that the function chosen
// selects. If only the jump to BRIDGEVETH-ADMIN would be left, the transaction also deletes both
// chains and the jump to BRIDGEVETH-FORWARD. A chain stays if it has rules of other programs, or if
// other programs jump to it.
func removeOwn(n *netns.Namespace, c *nft.Change, base, own nftChain, chosen func(xtables.Rule) bool) error {
	if slices.ContainsFunc(own.rules, func(r xtables.Rule) bool { return r != toAdmin && !chosen(r) }) {
		own.deleteFrom(c, chosen)
		return nil
	}
	jump := func(r xtables.Rule) bool { return r == toOwn }
	own.deleteFrom(c, func(xtables.Rule) bool { return true })
	base.deleteFrom(c, jump)
	admin := &nftables.Chain{Name: adminChain, Table: own.Table}
	return errors.Join(
		deleteIfUnused(n, c, own.Chain, len(own.rules)+count(base.rules, jump)),
		deleteIfUnused(n, c, admin, count(own.rules, func(r xtables.Rule) bool { return r == toAdmin })),
	)
}

func count(rules []xtables.Rule, chosen func(xtables.Rule) bool) (count int) {
	for _, r := range rules {
		if chosen(r) {
			count++
		}
	}
	return count
}

// deleteIfUnused makes the transaction delete a chain, if the transaction already deletes all rules
// of the chain and all jumps to the chain. The parameter rules is the number of rules and jumps
// that the transaction deletes.
func deleteIfUnused(n *netns.Namespace, c *nft.Change, chain *nftables.Chain, rules int) error {
	req := nft.Request(unix.NFT_MSG_GETCHAIN, 0, uint8(chain.Table.Family), nft.ChainNamed(chain.Table.Name, chain.Name)...)
	answers, err := n.Ask(unix.NETLINK_NETFILTER, req)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up chain %s: %w", chain.Name, err)
	}
	if netns.Attrs(answers[0][nl.SizeofNfgenmsg:]).Number(unix.NFTA_CHAIN_USE) == uint32(rules) {
		c.DeleteChain(chain.Name)
	}
	return nil
}
