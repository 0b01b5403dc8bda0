package forward

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/internal/shortsort"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/xtables"
)

// BaseChain is a base chain on the forward hook. Every forwarded packet of the chain's family
// traverses it, and passes only if no base chain denies it.
type BaseChain struct {
	plan.Chain
	Priority int32 // chains with a lower priority come first
	Owner    Owner
	Denies   string // what denies the packets that no rule has accepted, such as "policy drop"; "" if nothing does
	Opens    bool   // an earlier rule may accept new connections
}

// Owner is the program that a chain belongs to. The owner decides how bridgeveth can make the chain
// accept packets.
type Owner string

// The known owners. Every other program is OwnerUnknown.
const (
	OwnerIPTables  Owner = "iptables-nft"
	OwnerLegacy    Owner = "iptables-legacy"
	OwnerFirewalld Owner = "firewalld"
	OwnerDocker    Owner = "docker" // nf_tables tables of Docker, which deny only packets of Docker's bridges
	OwnerUs        Owner = "bridgeveth"
	OwnerUnknown   Owner = "" // any other program; we write to its chains only if "forwardChains" names them
)

// owner returns the owner of a chain. It recognizes the owner by the table and the name of the
// chain.
func owner(c plan.Chain) Owner {
	switch {
	case byIPTables(c) && c.Table == xtables.Filter && c.Name == xtables.Forward:
		return OwnerIPTables
	case c.Table == nft.OwnTable:
		return OwnerUs
	case c.Family == "inet" && c.Table == firewalldTable:
		return OwnerFirewalld
	case c.Table == dockerTable:
		return OwnerDocker
	}
	return OwnerUnknown
}

// ipFamilies contains the nf_tables families whose chains IP packets traverse. The key is the
// family's number, the value its name.
var ipFamilies = map[uint8]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}

// nftTables returns the tables of the families in ipFamilies. A plan.Chain with an empty Name
// stands for a table.
func nftTables(n *netns.Namespace) (list []plan.Chain, err error) {
	dumped, err := nft.List(n, unix.NFT_MSG_GETTABLE, 0)
	if err != nil {
		return nil, fmt.Errorf("list tables of nf_tables: %w", err)
	}
	for _, m := range dumped {
		if family, ok := ipFamilies[m.Family]; ok {
			list = append(list, plan.Chain{Family: family, Table: m.Text(unix.NFTA_TABLE_NAME)})
		}
	}
	return list, nil
}

// hookForward is NF_INET_FORWARD in linux/netfilter.h.
const hookForward = 2

// Chains returns the base chains that forwarded packets of a family (AF_INET, AF_INET6) traverse,
// in the order of traversal. It does not follow jumps and verdict maps, but assumes that a rule
// with a jump or a verdict map may accept packets. It changes nothing.
func Chains(n *netns.Namespace, family int) (list []BaseChain, err error) {
	dumped, err := nft.List(n, unix.NFT_MSG_GETCHAIN, 0)
	if err != nil {
		return nil, fmt.Errorf("list chains of nf_tables: %w", err)
	}
	for _, m := range dumped {
		hook := m.Get(unix.NFTA_CHAIN_HOOK)
		name, ip := ipFamilies[m.Family]
		if !ip || hook.Get(unix.NFTA_HOOK_HOOKNUM) == nil || hook.Number(unix.NFTA_HOOK_HOOKNUM) != hookForward {
			continue
		}
		c := BaseChain{
			Chain:    plan.Chain{Family: name, Table: m.Text(unix.NFTA_CHAIN_TABLE), Name: m.Text(unix.NFTA_CHAIN_NAME)},
			Priority: int32(hook.Number(unix.NFTA_HOOK_PRIORITY)),
		}
		if f := chainFamily(c.Chain); f != family && f != nft.FamilyINet {
			continue
		}
		c.Owner = owner(c.Chain)
		rules, err := nft.Rules(n, chainFamily(c.Chain), c.Table, c.Name)
		if err != nil {
			return nil, err
		}
		if m.Get(unix.NFTA_CHAIN_POLICY) != nil && m.Number(unix.NFTA_CHAIN_POLICY) == uint32(expr.VerdictDrop) {
			c.Denies = "policy drop"
		}
		for i, rule := range rules {
			opens, denies := effect(rule.Get(unix.NFTA_RULE_EXPRESSIONS))
			c.Opens = c.Opens || opens
			if i == len(rules)-1 && denies && c.Denies == "" {
				c.Denies = "last rule drop or reject"
			}
		}
		list = append(list, c)
	}
	legacy, err := readLegacy(n, family)
	if err != nil {
		return nil, err
	}
	if legacy.inForce {
		c := BaseChain{Chain: plan.Chain{Family: map[int]string{unix.AF_INET: "ip", unix.AF_INET6: "ip6"}[family], Table: xtables.Filter, Name: xtables.Forward}, Owner: OwnerLegacy, Opens: true, Denies: legacy.denial()}
		list = append(list, c)
	}
	shortsort.Stable(list, func(a, b BaseChain) bool { return a.Priority < b.Priority })
	return list, nil
}

// ctNew is NF_CT_STATE_BIT(IP_CT_NEW) in linux/netfilter/nf_conntrack_common.h.
const ctNew = 1 << 3

// effect reports whether a rule of another program may accept a new connection (opens), and whether
// it denies every packet that reaches it (denies).
func effect(expressions netns.Attrs) (opens, denies bool) {
	// The variable all is true as long as no expression restricts the packets that the rule
	// matches. The variable state is true if the last expression loaded ct state. The variable
	// established is true if the rule matches only packets of established connections.
	all, state, established := true, false, false
	expressions.Each(func(_ uint16, expression []byte) {
		data := netns.Attrs(expression).Get(unix.NFTA_EXPR_DATA)
		switch name := netns.Attrs(expression).Text(unix.NFTA_EXPR_NAME); name {
		case "counter", "log":
		case "reject":
			denies = all
		case "target": // iptables-nft stores REJECT as a target
			denies = all && data.Text(unix.NFTA_TARGET_NAME) == "REJECT"
		case "immediate":
			verdict := data.In(unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT)
			switch {
			case verdict.Get(unix.NFTA_VERDICT_CODE) == nil:
			case verdict.Number(unix.NFTA_VERDICT_CODE) == uint32(expr.VerdictDrop):
				denies = all
			default:
				opens = !established
			}
		default:
			switch {
			case name == "ct":
				state = data.Number(unix.NFTA_CT_KEY) == unix.NFT_CT_STATE
			case name == "bitwise" && state: // as in ct state established,related
				mask := data.In(unix.NFTA_BITWISE_MASK, unix.NFTA_DATA_VALUE)
				established = established || len(mask) == 4 && binary.NativeEndian.Uint32(mask)&ctNew == 0
			case name == "lookup" && data.Get(unix.NFTA_LOOKUP_DREG) != nil: // a lookup in a map, whose values may be verdicts
				opens = true
			}
			all = false
		}
	})
	return opens, denies
}
