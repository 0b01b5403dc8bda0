package ownrules

import (
	"encoding/binary"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
)

// Drop is a rule in our tables that drops packets, with the rule's counter.
type Drop struct {
	Family         int    // AF_INET, AF_INET6 or AF_BRIDGE
	Bridge         string // "" for a rule of the guard, which all bridges share
	Rule           string // the rule's comment, without the name of the bridge
	Packets, Bytes uint64 // since the rule was added
}

// Drops returns the rules in our tables that drop packets.
func Drops(n *netns.Namespace) (list []Drop, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		rules, err := nft.Rules(n, family, nft.OwnTable, "")
		if err != nil {
			return nil, err
		}
		for _, rule := range rules {
			packets, bytes, drops := dropped(rule)
			if !drops {
				continue
			}
			d := Drop{Family: family, Rule: nft.Comment(rule), Packets: packets, Bytes: bytes}
			if rule.Text(unix.NFTA_RULE_CHAIN) == ForwardFilter.Name {
				d.Bridge, d.Rule, _ = strings.Cut(d.Rule, " ")
			}
			list = append(list, d)
		}
	}
	return list, nil
}

// dropped returns the counter of a rule. The result drops is false if the rule does not drop
// packets.
func dropped(rule netns.Attrs) (packets, bytes uint64, drops bool) {
	rule.Get(unix.NFTA_RULE_EXPRESSIONS).Each(func(_ uint16, expression []byte) {
		data := netns.Attrs(expression).Get(unix.NFTA_EXPR_DATA)
		switch netns.Attrs(expression).Text(unix.NFTA_EXPR_NAME) {
		case "counter":
			packets, bytes = count(data.Get(unix.NFTA_COUNTER_PACKETS)), count(data.Get(unix.NFTA_COUNTER_BYTES))
		case "immediate":
			verdict := data.In(unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT)
			drops = verdict.Get(unix.NFTA_VERDICT_CODE) != nil && verdict.Number(unix.NFTA_VERDICT_CODE) == uint32(expr.VerdictDrop)
		}
	})
	return packets, bytes, drops
}

// count returns the number in an attribute of a counter.
func count(value []byte) uint64 {
	if len(value) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(value)
}
