package forward

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/xtables"
)

// iptablesTables are the tables of iptables-nft in each family.
var iptablesTables = []string{xtables.Filter, "nat", "mangle", "raw", "security"}

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
				if c.Name != forwardChain && c.Name != transitChain && !slices.Contains(chains, c) && !xtables.Readable(rule.Get(unix.NFTA_RULE_EXPRESSIONS)) {
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
