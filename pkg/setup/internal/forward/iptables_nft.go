package forward

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
)

// readNFT reads FORWARD and BRIDGEVETH-FORWARD in the filter table of iptables-nft. It may omit
// rules at the end of FORWARD (see readForward).
func readNFT(n *netns.Namespace, family int) (t xtables, err error) {
	t = xtables{flavour: "nft", family: family}
	if t.forward, err = readForward(n, family); err != nil {
		return t, err
	}
	if t.inForce = len(t.forward) > 0; !t.inForce {
		t.inForce, err = nft.HasChain(n, family, filterTable, forwardBase)
	}
	if err == nil && t.inForce {
		t.own, err = nftRules(n, family, filterTable, forwardChain, all)
	}
	if err == nil && t.lastBefore() >= 0 {
		t.docker, err = nft.HasChain(n, family, filterTable, dockerDrops)
	}
	return t, err
}

// someRules is the number of rules of FORWARD that readForward always reads. The kernel sends about
// this number of rules in two messages.
const someRules = 100

// readForward reads the rules of FORWARD, which may have thousands of rules. It stops when it has
// read both someRules rules and the jump to BRIDGEVETH-FORWARD. But if a jump to one of
// chainsBefore may come later, it reads all rules, because our jump must come after such a jump.
func readForward(n *netns.Namespace, family int) ([]rule, error) {
	jumped := false
	rules, err := nftRules(n, family, filterTable, forwardBase, func(seen []rule) bool {
		last := len(seen) - 1
		jumped = jumped && last > 0 || seen[last] == toOwn
		return len(seen) < someRules || !jumped
	})
	if err != nil || len(rules) < someRules || !jumped {
		return rules, err
	}
	hidden, err := jumpMayFollow(n, family, rules)
	if err == nil && hidden {
		rules, err = nftRules(n, family, filterTable, forwardBase, all)
	}
	return rules, err
}

// all is a value for the parameter "more" of nftRules: nftRules then reads the whole chain.
func all([]rule) bool { return true }

// nftRules reads the rules of a chain. After each rule, it calls the function more with all rules
// that it has read so far, and stops if the function returns false. A chain that does not exist has
// no rules.
func nftRules(n *netns.Namespace, family int, table, chain string, more func(seen []rule) bool) ([]rule, error) {
	return netns.Dump(func() (rules []rule, err error) {
		err = nft.EachRule(n, family, table, chain, func(r netns.Attrs) bool {
			rules = append(rules, parseNFT(r.Get(unix.NFTA_RULE_EXPRESSIONS)))
			return more(rules)
		})
		return rules, err
	})
}

// parseNFT parses a rule of iptables-nft. Such a rule has nf_tables expressions for interfaces and
// verdicts, and an xt match for conntrack. NFTA_* and NFT_* are in linux/netfilter/nf_tables.h.
func parseNFT(expressions netns.Attrs) (r rule) {
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
			r.target = verdictOf(data.In(unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT))
		case "target": // an xt target
			r.target = data.Text(unix.NFTA_TARGET_NAME)
		case "reject": // written by nft(8)
			r.target = reject
		case "counter", "log":
		case "ct":
			r.other, r.native = true, true
		default:
			r.other = true
		}
	})
	return r
}

// nfAccept is NF_ACCEPT in linux/netfilter.h.
const nfAccept = 1

// verdictOf translates a verdict of nf_tables to a target of iptables: the name of a chain, accept
// or deny. It returns "" for other verdicts.
func verdictOf(verdict netns.Attrs) string {
	if chain := verdict.Text(unix.NFTA_VERDICT_CHAIN); chain != "" || verdict.Get(unix.NFTA_VERDICT_CODE) == nil {
		return chain
	}
	switch verdict.Number(unix.NFTA_VERDICT_CODE) {
	case nfDrop:
		return deny
	case nfAccept:
		return accept
	}
	return ""
}

// compare parses an expression that compares the name of a packet's interface, and stores the name
// in r. A name without a zero byte at its end is a prefix, such as "eth+".
func (r *rule) compare(key uint32, cmp netns.Attrs) {
	name, whole := bytes.CutSuffix(cmp.In(unix.NFTA_CMP_DATA, unix.NFTA_DATA_VALUE), []byte{0})
	switch {
	case cmp.Number(unix.NFTA_CMP_OP) != unix.NFT_CMP_EQ || !whole:
		r.other = true
	case key == unix.NFT_META_IIFNAME:
		r.in = netns.Text(name, len(name))
	case key == unix.NFT_META_OIFNAME:
		r.out = netns.Text(name, len(name))
	default:
		r.other = true
	}
}

// match parses an xt match, and stores in r what the match requires.
func (r *rule) match(m netns.Attrs) {
	info := m.Get(unix.NFTA_MATCH_INFO)
	switch name := m.Word(unix.NFTA_MATCH_NAME); {
	case string(name) == "conntrack" && len(info) >= conntrackState+2:
		r.states = binary.NativeEndian.Uint16(info[conntrackState:])
	case string(name) != "comment":
		r.other = true
	}
}
