package forward

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// BaseChain is a chain on the forward hook: one that each forwarded packet of its family
// has to pass, whatever the others say.
type BaseChain struct {
	plan.Chain
	Priority int32 // those with less come first
	Owner    Owner
	Denies   string // what denies a packet that no rule is about, such as "policy drop"; "" if nothing does
	Opens    bool   // some rule may let new connections pass all the same
}

// Owner says whose a chain is, and so how packets are got past it.
type Owner string

// The owners that we know.
const (
	OwnerIPTables  Owner = "iptables-nft"
	OwnerLegacy    Owner = "iptables-legacy"
	OwnerFirewalld Owner = "firewalld"
	OwnerDocker    Owner = "docker" // its tables of nf_tables: they deny its own bridges' packets only
	OwnerUs        Owner = "bridgeveth"
	OwnerUnknown   Owner = "" // only whoever wrote it can let packets pass
)

// owner says whose the chain is.
func owner(c plan.Chain) Owner {
	switch {
	case byIPTables(c) && c.Table == filterTable && c.Name == forwardBase:
		return OwnerIPTables
	case c.Table == nft.OwnTable:
		return OwnerUs
	case c.Family == "inet" && c.Table == firewalldTable:
		return OwnerFirewalld
	case c.Table == "docker-bridges":
		return OwnerDocker
	}
	return OwnerUnknown
}

// families of nf_tables that packets of IP pass, by their numbers.
var ipFamilies = map[uint8]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}

// nftTables lists the tables of IP, as chains without a name.
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

// Chains lists the chains that packets of a family (AF_INET, AF_INET6) pass where
// they are forwarded, in their order. It changes nothing. What rules mean that jump, or
// look a verdict up, is not found out: they count as such that may let packets pass.
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
		if m.Get(unix.NFTA_CHAIN_POLICY) != nil && m.Number(unix.NFTA_CHAIN_POLICY) == nfDrop {
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
		c := BaseChain{Chain: plan.Chain{Family: map[int]string{unix.AF_INET: "ip", unix.AF_INET6: "ip6"}[family], Table: filterTable, Name: forwardBase}, Owner: OwnerLegacy, Opens: true, Denies: legacy.denial()}
		list = append(list, c)
	}
	slices.SortStableFunc(list, func(a, b BaseChain) int { return cmp.Compare(a.Priority, b.Priority) })
	return list, nil
}

// Numbers of linux/netfilter.h and linux/netfilter/nf_conntrack_common.h.
const (
	nfDrop = 0
	ctNew  = 1 << 3 // NF_CT_STATE_BIT(IP_CT_NEW)
)

// effect says of a rule of somebody else's whether it may let a new connection pass, and
// whether it denies all that gets to it.
func effect(expressions netns.Attrs) (opens, denies bool) {
	certain, state, known := true, false, false
	expressions.Each(func(_ uint16, expression []byte) {
		data := netns.Attrs(expression).Get(unix.NFTA_EXPR_DATA)
		switch name := netns.Attrs(expression).Text(unix.NFTA_EXPR_NAME); name {
		case "counter", "log":
		case "reject":
			denies = certain
		case "target": // of iptables-nft, which writes REJECT so
			denies = certain && data.Text(unix.NFTA_TARGET_NAME) == "REJECT"
		case "immediate":
			verdict := data.In(unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT)
			switch {
			case verdict.Get(unix.NFTA_VERDICT_CODE) == nil:
			case verdict.Number(unix.NFTA_VERDICT_CODE) == nfDrop:
				denies = certain
			default:
				opens = !known
			}
		default:
			switch {
			case name == "ct":
				state = data.Number(unix.NFTA_CT_KEY) == unix.NFT_CT_STATE
			case name == "bitwise" && state: // ct state established,related
				mask := data.In(unix.NFTA_BITWISE_MASK, unix.NFTA_DATA_VALUE)
				known = known || len(mask) == 4 && binary.NativeEndian.Uint32(mask)&ctNew == 0
			case name == "lookup" && data.Get(unix.NFTA_LOOKUP_DREG) != nil: // a map, perhaps of verdicts
				opens = true
			}
			certain = false
		}
	})
	return opens, denies
}

// ErrDenied says that packets of a network are dropped where only somebody else can let
// them pass.
var ErrDenied = errors.New("packets of its containers are dropped")

// CheckDenied looks for what would drop a network's packets although AttachPort has done all it
// does: ErrDenied. Of a network of both families it looks at IPv4, so that one without IPv6
// beyond the host passes. Where the families are not known yet, both have to be denied.
func CheckDenied(n *netns.Namespace, net *plan.Network) error {
	families := net.Families()
	if len(families) > 0 {
		return checkDenied(n, net, families[0])
	}
	err := checkDenied(n, net, unix.AF_INET)
	if err == nil {
		return nil
	}
	if err6 := checkDenied(n, net, unix.AF_INET6); err6 == nil || !errors.Is(err6, ErrDenied) {
		return err6
	}
	return err
}

// checkDenied looks for a chain that we do not know the owner of and that lets no new connection
// pass, unless it is one of net.ForwardChains, and for a rule of FORWARD that denies everything
// ahead of Docker's chains, where ours does not go: ErrDenied.
func checkDenied(n *netns.Namespace, net *plan.Network, family int) error {
	chains, err := Chains(n, family)
	if err != nil {
		return err
	}
	for _, c := range chains {
		if c.Owner == OwnerUnknown && c.Denies != "" && !c.Opens && !slices.Contains(net.ForwardChains, c.Chain) {
			return fmt.Errorf(`%w by chain %s of nf_tables (%s): accept them there, or set "forwardChains": ["%s"]`, ErrDenied, c.Chain, c.Denies, c.Chain)
		}
	}
	tables, err := readXtables(n, family)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if t.closed() {
			return fmt.Errorf("%w by a rule of %s that denies everything ahead of Docker's chains: put it behind them, or into DOCKER-USER", ErrDenied, t)
		}
	}
	return nil
}
