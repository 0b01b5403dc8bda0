package setup

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// readNFT reads the filter table that iptables-nft keeps: FORWARD as far as it matters, and
// our chain.
func (n *Namespace) readNFT(family int) (t xtables, err error) {
	t = xtables{flavour: "nft", family: family}
	if t.forward, err = n.readForward(family); err != nil {
		return t, err
	}
	if t.inForce = len(t.forward) > 0; !t.inForce {
		t.inForce, err = n.hasNFTChain(family, filterTable, forwardBase)
	}
	if err == nil && t.inForce {
		t.own, err = n.nftRules(family, filterTable, forwardChain, all)
	}
	if err == nil && slices.ContainsFunc(t.forward, func(r rule) bool { return slices.Contains(before, r.target) }) {
		t.docker, err = n.hasNFTChain(family, filterTable, dockerDrops)
	}
	return t, err
}

// someRules is how many rules of FORWARD are read in any case: some two answers of the kernel's.
const someRules = 100

// readForward reads the rules of FORWARD. Where others have thousands, those far behind our jump
// are not read: they change nothing, unless the only jump to one of the chains in before is among
// them.
func (n *Namespace) readForward(family int) ([]rule, error) {
	jumped := false
	rules, err := n.nftRules(family, filterTable, forwardBase, func(seen []rule) bool {
		last := len(seen) - 1
		jumped = jumped && last > 0 || seen[last] == (rule{target: forwardChain})
		return len(seen) < someRules || !jumped
	})
	if err != nil || len(rules) < someRules || !jumped {
		return rules, err
	}
	leadsTo := func(chain string) bool { return slices.Contains(rules, rule{target: chain}) }
	for _, chain := range before {
		if leadsTo(chain) || chain == dockerIsolates && leadsTo(dockerForward) {
			continue
		}
		exists, err := n.hasNFTChain(family, filterTable, chain)
		if err != nil {
			return nil, err
		}
		if exists {
			return n.nftRules(family, filterTable, forwardBase, all)
		}
	}
	return rules, nil
}

// all has nftRules read all rules of a chain.
func all([]rule) bool { return true }

// nftRules reads the rules of a chain up to the first after which more says false; a chain that
// does not exist has none.
func (n *Namespace) nftRules(family int, table, chain string, more func(seen []rule) bool) ([]rule, error) {
	return dump(func() (rules []rule, err error) {
		err = n.eachRule(family, table, chain, func(r attrs) bool {
			rules = append(rules, parseNFT(r.get(unix.NFTA_RULE_EXPRESSIONS)))
			return more(rules)
		})
		return rules, err
	})
}

// parseNFT reads a rule as iptables-nft writes it: native expressions for
// interfaces and verdicts, an xt match for conntrack. NFTA_* and NFT_* are in
// linux/netfilter/nf_tables.h.
func parseNFT(expressions attrs) (r rule) {
	var key uint32
	expressions.each(func(_ uint16, expression []byte) {
		data := attrs(expression).get(unix.NFTA_EXPR_DATA)
		switch string(attrs(expression).word(unix.NFTA_EXPR_NAME)) { // in place, without a copy
		case "meta":
			key = data.number(unix.NFTA_META_KEY)
		case "cmp":
			r.compare(key, data)
		case "match":
			r.match(data)
		case "immediate":
			r.target = verdictOf(data.in(unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT))
		case "target": // of xtables
			r.target = data.text(unix.NFTA_TARGET_NAME)
		case "reject": // of nft(8)
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

// verdictOf returns the chain that a verdict leads to, accept, deny, or "" for another.
func verdictOf(verdict attrs) string {
	if chain := verdict.text(unix.NFTA_VERDICT_CHAIN); chain != "" || verdict.get(unix.NFTA_VERDICT_CODE) == nil {
		return chain
	}
	switch verdict.number(unix.NFTA_VERDICT_CODE) {
	case nfDrop:
		return deny
	case nfAccept:
		return accept
	}
	return ""
}

// compare reads a comparison of a packet's interface. Without the zero byte it is
// only the beginning of a name, as in "eth+".
func (r *rule) compare(key uint32, cmp attrs) {
	name, whole := bytes.CutSuffix(cmp.in(unix.NFTA_CMP_DATA, unix.NFTA_DATA_VALUE), []byte{0})
	switch {
	case cmp.number(unix.NFTA_CMP_OP) != unix.NFT_CMP_EQ || !whole:
		r.other = true
	case key == unix.NFT_META_IIFNAME:
		r.in = text(name, len(name))
	case key == unix.NFT_META_OIFNAME:
		r.out = text(name, len(name))
	default:
		r.other = true
	}
}

// match reads an xt match.
func (r *rule) match(m attrs) {
	info := m.get(unix.NFTA_MATCH_INFO)
	switch name := m.word(unix.NFTA_MATCH_NAME); {
	case string(name) == "conntrack" && len(info) >= conntrackState+2:
		r.states = binary.NativeEndian.Uint16(info[conntrackState:])
	case string(name) != "comment":
		r.other = true
	}
}
