package forward

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// iptablesTables are the tables of iptables-nft in each family.
var iptablesTables = []string{filterTable, "nat", "mangle", "raw", "security"}

// readable are the expressions that iptables-nft can read: supported_exprs in its iptables/nft.c.
var readable = []string{"match", "target", "payload", "meta", "cmp", "bitwise", "counter", "immediate", "lookup", "range", "limit"}

// IncompatibleChains returns the chains of other programs in a family (AF_INET, AF_INET6) that have
// a rule which iptables-nft cannot read. iptables refuses to list or change such a chain
// ("incompatible, use 'nft' tool"), and refuses every command for the whole table. The usual cause
// is that nft(8) has loaded a saved ruleset: nft(8) saves some rules of iptables in its own form.
// IncompatibleChains reads all rules of iptablesTables and changes nothing.
func IncompatibleChains(n *netns.Namespace, family int) ([]plan.Chain, error) {
	name := ipFamilies[uint8(nft.Family(family))]
	return netns.Dump(func() (chains []plan.Chain, err error) {
		for _, table := range iptablesTables {
			err := nft.EachRule(n, family, table, "", func(rule netns.Attrs) bool {
				c := plan.Chain{Family: name, Table: table, Name: rule.Text(unix.NFTA_RULE_CHAIN)}
				if c.Name != forwardChain && c.Name != transitChain && !slices.Contains(chains, c) && !iptablesReads(rule.Get(unix.NFTA_RULE_EXPRESSIONS)) {
					chains = append(chains, c)
				}
				return true
			})
			if err != nil {
				return nil, err
			}
		}
		return chains, nil
	})
}

// iptablesReads reports whether iptables-nft can read a rule. iptables-nft
// reads a log expression with a group as the target NFLOG, and cannot read one without a group.
func iptablesReads(expressions netns.Attrs) bool {
	reads := true
	expressions.Each(func(_ uint16, expression []byte) {
		name := netns.Attrs(expression).Text(unix.NFTA_EXPR_NAME)
		group := netns.Attrs(expression).In(unix.NFTA_EXPR_DATA, unix.NFTA_LOG_GROUP)
		reads = reads && (slices.Contains(readable, name) || name == "log" && group != nil)
	})
	return reads
}
