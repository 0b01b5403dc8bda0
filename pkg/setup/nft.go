package setup

import (
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

// nftRequest begins a request to nf_tables about what the attributes name, of a family
// (NFPROTO_*) or, with 0, of all.
func nftRequest(message, flags int, family uint8, attributes ...*nl.RtAttr) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|message, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	for _, a := range attributes {
		req.AddData(a)
	}
	return req
}

// hasNFTChain says whether a chain exists.
func (n *Namespace) hasNFTChain(family int, table, chain string) (bool, error) {
	return n.exists(unix.NFT_MSG_GETCHAIN, family, chainNamed(table, chain)...)
}

// chainNamed names a chain in requests about chains.
func chainNamed(table, chain string) []*nl.RtAttr {
	return []*nl.RtAttr{nl.NewRtAttr(unix.NFTA_CHAIN_TABLE, nl.ZeroTerminated(table)), nl.NewRtAttr(unix.NFTA_CHAIN_NAME, nl.ZeroTerminated(chain))}
}

// exists says whether nf_tables has what a request asks for.
func (n *Namespace) exists(message, family int, attributes ...*nl.RtAttr) (bool, error) {
	_, err := n.ask(unix.NETLINK_NETFILTER, nftRequest(message, 0, uint8(nftFamily(family)), attributes...))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return false, fmt.Errorf("look up in nf_tables: %w", err)
	}
	return err == nil, nil
}

// dumpChain returns the attributes (NFTA_RULE_*) of each rule of a chain, or of all
// chains of a table where chain is "".
func (n *Namespace) dumpChain(family int, table, chain string) ([]attrs, error) {
	return dump(func() (rules []attrs, err error) {
		err = n.eachRule(family, table, chain, func(rule attrs) bool {
			rules = append(rules, slices.Clone(rule))
			return true
		})
		return rules, err
	})
}

// eachRule calls f with the rules that dumpChain returns, in order, until f says false. What it
// costs does not depend on how many rules are behind that one. rule is good until the next call.
// The error is ErrDumpInterrupted where the rules changed meanwhile: see dump.
func (n *Namespace) eachRule(family int, table, chain string, f func(rule attrs) bool) error {
	what := []*nl.RtAttr{nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(table))}
	if chain != "" {
		what = append(what, nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(chain)))
	}
	req := nftRequest(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, uint8(nftFamily(family)), what...)
	err := n.each(unix.NETLINK_NETFILTER, req, func(data []byte) bool { return f(attrs(data[nl.SizeofNfgenmsg:])) })
	if err != nil {
		return fmt.Errorf("read nf_tables chain %s: %w", chain, err)
	}
	return nil
}

// nfMessage is what nf_tables answers: the attributes of a table, chain or rule.
type nfMessage struct {
	family uint8 // NFPROTO_*
	attrs
}

// dumpNFT lists what a request asks for, of a family or, with 0, of all.
func (n *Namespace) dumpNFT(message int, family uint8, attributes ...*nl.RtAttr) (list []nfMessage, err error) {
	messages, err := dump(func() ([][]byte, error) {
		return n.ask(unix.NETLINK_NETFILTER, nftRequest(message, unix.NLM_F_DUMP, family, attributes...))
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

// ruleHandle is what the kernel tells rules apart by.
func ruleHandle(rule attrs) uint64 { return binary.BigEndian.Uint64(rule.get(unix.NFTA_RULE_HANDLE)) }

// deleteRules has the next transaction delete rules of a chain.
func deleteRules(c *nftables.Conn, from *nftables.Chain, handles []uint64) (err error) {
	for _, handle := range handles {
		err = errors.Join(err, c.DelRule(&nftables.Rule{Table: from.Table, Chain: from, Handle: handle}))
	}
	return err
}

// anyGeneration is what transact takes where it does not matter what has changed before.
const anyGeneration = 0

// transact sends a batch of requests to nf_tables as one transaction: the kernel does all of
// it or nothing (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c). Nothing is done, with
// ERESTART, when nf_tables is not of the generation that the caller has seen.
func (n *Namespace) transact(b batch, seen uint32) error {
	frame := func(kind int) *nl.NetlinkRequest {
		req := nl.NewNetlinkRequest(kind, 0)
		subsystem := binary.BigEndian.AppendUint16(nil, unix.NFNL_SUBSYS_NFTABLES)
		req.AddData(&nl.Nfgenmsg{Version: nl.NFNETLINK_V0, ResId: binary.NativeEndian.Uint16(subsystem)})
		return req
	}
	begin := frame(unix.NFNL_MSG_BATCH_BEGIN)
	if seen != anyGeneration {
		begin.AddData(nl.NewRtAttr(unix.NFNL_BATCH_GENID, binary.BigEndian.AppendUint32(nil, seen)))
	}
	return n.exchange(unix.NETLINK_NETFILTER, b, begin, frame(unix.NFNL_MSG_BATCH_END))
}

// generation is the number of nf_tables' last transaction.
func (n *Namespace) generation() (uint32, error) {
	answers, err := n.ask(unix.NETLINK_NETFILTER, nftRequest(unix.NFT_MSG_GETGEN, 0, unix.NFPROTO_UNSPEC))
	if err == nil && len(answers) != 1 {
		err = fmt.Errorf("got %d answers", len(answers))
	}
	if err != nil {
		return 0, fmt.Errorf("read the generation of nf_tables: %w", err)
	}
	return attrs(answers[0][nl.SizeofNfgenmsg:]).number(unix.NFTA_GEN_ID), nil
}
