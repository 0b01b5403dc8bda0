package xtables

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
)

// All is a value for the parameter "more" of Rules: Rules then reads the whole chain.
func All([]Rule) bool { return true }

// Rules reads the rules of a chain of iptables-nft. After each rule, it calls the function more with
// all rules that it has read so far, and stops if the function returns false. A chain that does not
// exist has no rules.
func Rules(n *netns.Namespace, family int, table, chain string, more func(seen []Rule) bool) ([]Rule, error) {
	return netns.Dump(func() (rules []Rule, err error) {
		err = nft.EachRule(n, family, table, chain, func(r netns.Attrs) bool {
			rules = append(rules, Parse(r.Get(unix.NFTA_RULE_EXPRESSIONS)))
			return more(rules)
		})
		return rules, err
	})
}

// Parse parses a rule of iptables-nft. Such a rule has nf_tables expressions for interfaces and
// verdicts, and an xt match for conntrack. NFTA_* and NFT_* are in linux/netfilter/nf_tables.h.
func Parse(expressions netns.Attrs) (r Rule) {
	var key uint32
	expressions.Each(func(_ uint16, expression []byte) {
		data := netns.Attrs(expression).Get(unix.NFTA_EXPR_DATA)
		switch string(netns.Attrs(expression).Word(unix.NFTA_EXPR_NAME)) { // as bytes, because a string would need a copy
		case "meta":
			key = data.Number(unix.NFTA_META_KEY)
		case "cmp":
			r.compare(key, data)
		case "match":
			r.match(data)
		case "immediate":
			r.Target = verdictOf(data.In(unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT))
		case "target": // an xt target
			r.Target = data.Text(unix.NFTA_TARGET_NAME)
		case "reject": // written by nft(8)
			r.Target = Reject
		case "counter", "log":
		case "ct":
			r.Other, r.Native = true, true
		default:
			r.Other = true
		}
	})
	return r
}

// verdictOf translates a verdict of nf_tables to a target of iptables: the name of a chain, Accept
// or Drop. It returns "" for other verdicts.
func verdictOf(verdict netns.Attrs) string {
	if chain := verdict.Text(unix.NFTA_VERDICT_CHAIN); chain != "" || verdict.Get(unix.NFTA_VERDICT_CODE) == nil {
		return chain
	}
	switch verdict.Number(unix.NFTA_VERDICT_CODE) {
	case uint32(expr.VerdictDrop):
		return Drop
	case uint32(expr.VerdictAccept):
		return Accept
	}
	return ""
}

// compare parses an expression that compares the name of a packet's interface, and stores the name
// in r. A name without a zero byte at its end is a prefix, such as "eth+".
func (r *Rule) compare(key uint32, cmp netns.Attrs) {
	name, whole := bytes.CutSuffix(cmp.In(unix.NFTA_CMP_DATA, unix.NFTA_DATA_VALUE), []byte{0})
	switch {
	case cmp.Number(unix.NFTA_CMP_OP) != unix.NFT_CMP_EQ || !whole:
		r.Other = true
	case key == unix.NFT_META_IIFNAME:
		r.In = netns.Text(name, len(name))
	case key == unix.NFT_META_OIFNAME:
		r.Out = netns.Text(name, len(name))
	default:
		r.Other = true
	}
}

// match parses an xt match, and stores in r what the match requires.
func (r *Rule) match(m netns.Attrs) {
	info := m.Get(unix.NFTA_MATCH_INFO)
	switch name := m.Word(unix.NFTA_MATCH_NAME); {
	case string(name) == "conntrack" && len(info) >= conntrackState+2:
		r.States = binary.NativeEndian.Uint16(info[conntrackState:])
	case string(name) != "comment":
		r.Other = true
	}
}

// Expressions returns the expressions that iptables-nft writes for the rule.
func (r Rule) Expressions() (list []expr.Any) {
	if r.In != "" {
		list = append(list, nft.InterfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, r.In)...)
	}
	if r.Out != "" {
		list = append(list, nft.InterfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, r.Out)...)
	}
	if r.States != 0 {
		const matchState = 1 << 0 // XT_CONNTRACK_STATE in linux/netfilter/xt_conntrack.h
		info := &xt.ConntrackMtinfo3{}
		info.MatchFlags, info.StateMask = matchState, r.States
		list = append(list, &expr.Match{Name: "conntrack", Rev: 3, Info: info})
	}
	list = append(list, &expr.Counter{})
	if r.Target == Accept {
		return append(list, &expr.Verdict{Kind: expr.VerdictAccept})
	}
	return append(list, &expr.Verdict{Kind: expr.VerdictJump, Chain: r.Target})
}

// readable are the expressions that iptables-nft can read: supported_exprs in its iptables/nft.c.
var readable = []string{"match", "target", "payload", "meta", "cmp", "bitwise", "counter", "immediate", "lookup", "range", "limit"}

// Readable reports whether iptables-nft can read a rule. iptables-nft reads a log expression with a
// group as the target NFLOG, and cannot read one without a group.
func Readable(expressions netns.Attrs) bool {
	reads := true
	expressions.Each(func(_ uint16, expression []byte) {
		name := netns.Attrs(expression).Text(unix.NFTA_EXPR_NAME)
		group := netns.Attrs(expression).In(unix.NFTA_EXPR_DATA, unix.NFTA_LOG_GROUP)
		reads = reads && (slices.Contains(readable, name) || name == "log" && group != nil)
	})
	return reads
}
