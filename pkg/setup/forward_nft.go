package setup

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// readNFT reads the filter table that iptables-nft keeps: two dumps of one chain
// each.
func (n *Namespace) readNFT(family int) (t xtables, err error) {
	t = xtables{flavour: "nft", family: family}
	if t.forward, err = n.nftRules(family, filterTable, forwardBase); err != nil {
		return t, err
	}
	if t.inForce = len(t.forward) > 0; !t.inForce {
		t.inForce, err = n.hasNFTChain(family, filterTable, forwardBase)
	}
	if err == nil && t.inForce {
		t.own, err = n.nftRules(family, filterTable, forwardChain)
	}
	if err == nil && slices.ContainsFunc(t.forward, func(r rule) bool { return slices.Contains(before, r.target) }) {
		t.docker, err = n.hasNFTChain(family, filterTable, dockerDrops)
	}
	return t, err
}

// nftRules reads the rules of a chain; a chain that does not exist has none.
func (n *Namespace) nftRules(family int, table, chain string) (rules []rule, err error) {
	dumped, err := n.dumpChain(family, table, chain)
	for _, rule := range dumped {
		rules = append(rules, parseNFT(rule.get(unix.NFTA_RULE_EXPRESSIONS)))
	}
	return rules, err
}

// parseNFT reads a rule as iptables-nft writes it: native expressions for
// interfaces and verdicts, an xt match for conntrack. NFTA_* and NFT_* are in
// linux/netfilter/nf_tables.h.
func parseNFT(expressions attrs) (r rule) {
	var key uint32
	expressions.each(func(_ uint16, expression []byte) {
		data := attrs(expression).get(unix.NFTA_EXPR_DATA)
		switch attrs(expression).text(unix.NFTA_EXPR_NAME) {
		case "meta":
			key = data.number(unix.NFTA_META_KEY)
		case "cmp":
			r.compare(key, data)
		case "match":
			r.match(data)
		case "immediate":
			verdict := data.in(unix.NFTA_IMMEDIATE_DATA, unix.NFTA_DATA_VERDICT)
			r.target = verdict.text(unix.NFTA_VERDICT_CHAIN)
			if verdicts := map[uint32]string{nfDrop: deny, nfAccept: accept}; r.target == "" && verdict.get(unix.NFTA_VERDICT_CODE) != nil {
				r.target = verdicts[verdict.number(unix.NFTA_VERDICT_CODE)]
			}
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
	name, info := m.text(unix.NFTA_MATCH_NAME), m.get(unix.NFTA_MATCH_INFO)
	switch {
	case name == "conntrack" && len(info) >= conntrackState+2:
		r.states = binary.NativeEndian.Uint16(info[conntrackState:])
	case name != "comment":
		r.other = true
	}
}
