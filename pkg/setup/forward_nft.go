package setup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// nft returns a connection to the namespace's nf_tables, opened at its first use,
// to change rules with. Reading them comes with every ADD and is done below: the
// library's listings cost half a millisecond each, and fail where somebody else's
// rule is new to it.
func (n *Namespace) nft() (*nftables.Conn, error) {
	if n.nftConn == nil {
		err := n.Do(func() (err error) {
			n.nftConn, err = nftables.New(nftables.AsLasting())
			return err
		})
		if err != nil {
			n.nftConn = nil
			return nil, fmt.Errorf("open nf_tables: %w", err)
		}
	}
	return n.nftConn, nil
}

// familyInet stands for both families of IP in nf_tables. It is the kernel's number for
// AF_UNIX elsewhere, which has no packets to filter.
const familyInet = unix.NFPROTO_INET

// nftFamily is a family as nf_tables counts them.
func nftFamily(family int) nftables.TableFamily {
	switch family {
	case familyInet:
		return nftables.TableFamilyINet
	case unix.AF_INET6:
		return nftables.TableFamilyIPv6
	case unix.AF_BRIDGE:
		return nftables.TableFamilyBridge
	}
	return nftables.TableFamilyIPv4
}

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

// hasNFTChain says whether a chain exists.
func (n *Namespace) hasNFTChain(family int, table, chain string) (bool, error) {
	return n.exists(unix.NFT_MSG_GETCHAIN, family,
		nl.NewRtAttr(unix.NFTA_CHAIN_TABLE, nl.ZeroTerminated(table)), nl.NewRtAttr(unix.NFTA_CHAIN_NAME, nl.ZeroTerminated(chain)))
}

// exists says whether nf_tables has what a request asks for.
func (n *Namespace) exists(message, family int, attributes ...*nl.RtAttr) (bool, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|message, 0)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(nftFamily(family)), Version: nl.NFNETLINK_V0})
	for _, a := range attributes {
		req.AddData(a)
	}
	_, err := n.ask(unix.NETLINK_NETFILTER, req)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return false, fmt.Errorf("look up in nf_tables: %w", err)
	}
	return err == nil, nil
}

// nftRules reads the rules of a chain; a chain that does not exist has none.
func (n *Namespace) nftRules(family int, table, chain string) (rules []rule, err error) {
	dumped, err := n.dumpChain(family, table, chain)
	for _, rule := range dumped {
		rules = append(rules, parseNFT(rule.get(unix.NFTA_RULE_EXPRESSIONS)))
	}
	return rules, err
}

// dumpChain returns the attributes (NFTA_RULE_*) of each rule of a chain, or of all
// chains of a table where chain is "".
func (n *Namespace) dumpChain(family int, table, chain string) (rules []attrs, err error) {
	what := []*nl.RtAttr{nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(table))}
	if chain != "" {
		what = append(what, nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(chain)))
	}
	messages, err := n.dumpNFT(unix.NFT_MSG_GETRULE, uint8(nftFamily(family)), what...)
	if err != nil {
		return nil, fmt.Errorf("read nf_tables chain %s: %w", chain, err)
	}
	for _, m := range messages {
		rules = append(rules, m.attrs)
	}
	return rules, nil
}

// nfMessage is what nf_tables answers: the attributes of a table, chain or rule.
type nfMessage struct {
	family uint8 // NFPROTO_*
	attrs
}

// dumpNFT lists what a request asks for, of a family or, with 0, of all.
func (n *Namespace) dumpNFT(message int, family uint8, attributes ...*nl.RtAttr) (list []nfMessage, err error) {
	messages, err := dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|message, unix.NLM_F_DUMP)
		req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
		for _, a := range attributes {
			req.AddData(a)
		}
		return n.ask(unix.NETLINK_NETFILTER, req)
	})
	for _, m := range messages {
		list = append(list, nfMessage{m[0], attrs(m[nl.SizeofNfgenmsg:])})
	}
	return list, err
}

// ruleComment is a rule's comment, as nft(8) shows it.
func ruleComment(rule attrs) string {
	comment, _ := userdata.GetString(rule.get(unix.NFTA_RULE_USERDATA), userdata.TypeComment)
	return comment
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
