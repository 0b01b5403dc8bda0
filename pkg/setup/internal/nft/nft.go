package nft

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

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

// FamilyINet is the family of nf_tables for IPv4 and IPv6 together. AF_UNIX has the same number, but
// nf_tables does not filter packets of AF_UNIX.
const FamilyINet = unix.NFPROTO_INET

// Family returns the nf_tables family for an address family (AF_*) or for FamilyINet.
func Family(family int) nftables.TableFamily {
	switch family {
	case FamilyINet:
		return nftables.TableFamilyINet
	case unix.AF_INET6:
		return nftables.TableFamilyIPv6
	case unix.AF_BRIDGE:
		return nftables.TableFamilyBridge
	}
	return nftables.TableFamilyIPv4
}

// Request returns a request to nf_tables. The attributes identify the object. The family is
// NFPROTO_*, or 0 for all.
func Request(message, flags int, family uint8, attributes ...*nl.RtAttr) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|message, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	for _, a := range attributes {
		req.AddData(a)
	}
	return req
}

// HasTable reports whether a table exists.
func HasTable(n *netns.Namespace, family int, table string) (bool, error) {
	return Exists(n, unix.NFT_MSG_GETTABLE, family, nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(table)))
}

// HasChain reports whether a chain exists.
func HasChain(n *netns.Namespace, family int, table, chain string) (bool, error) {
	return Exists(n, unix.NFT_MSG_GETCHAIN, family, ChainNamed(table, chain)...)
}

// ChainNamed returns the attributes that identify a chain in requests about chains.
func ChainNamed(table, chain string) []*nl.RtAttr {
	return []*nl.RtAttr{nl.NewRtAttr(unix.NFTA_CHAIN_TABLE, nl.ZeroTerminated(table)), nl.NewRtAttr(unix.NFTA_CHAIN_NAME, nl.ZeroTerminated(chain))}
}

// Exists reports whether nf_tables has an object. The attributes identify the object. message is the
// type of the request (NFT_MSG_GET*).
func Exists(n *netns.Namespace, message, family int, attributes ...*nl.RtAttr) (bool, error) {
	_, err := n.Ask(unix.NETLINK_NETFILTER, Request(message, 0, uint8(Family(family)), attributes...))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return false, fmt.Errorf("look up in nf_tables: %w", err)
	}
	return err == nil, nil
}

// HasMatch reports whether the kernel supports a match of iptables in rules of nf_tables. The kernel
// loads the module of the match if necessary.
func HasMatch(n *netns.Namespace, name string, revision uint32) bool {
	const match = 0 // the type: a match, not a target
	req := Request(0, 0, unix.NFPROTO_IPV4,
		nl.NewRtAttr(unix.NFTA_COMPAT_NAME, nl.ZeroTerminated(name)), nl.NewRtAttr(unix.NFTA_COMPAT_REV, number(revision)), nl.NewRtAttr(unix.NFTA_COMPAT_TYPE, number(match)))
	req.Type = unix.NFNL_SUBSYS_NFT_COMPAT << 8 // NFNL_MSG_COMPAT_GET is 0
	found := false
	err := n.Each(unix.NETLINK_NETFILTER, req, func([]byte) bool { // no end follows the only answer
		found = true
		return false
	})
	return err == nil && found
}

// Rules returns the attributes (NFTA_RULE_*) of each rule of a chain. If chain is "", it returns the
// rules of all chains of the table.
func Rules(n *netns.Namespace, family int, table, chain string) ([]netns.Attrs, error) {
	return netns.Dump(func() (rules []netns.Attrs, err error) {
		err = EachRule(n, family, table, chain, func(rule netns.Attrs) bool {
			rules = append(rules, slices.Clone(rule))
			return true
		})
		return rules, err
	})
}

// EachRule calls f with the rules that Rules would return, in the same order. If f returns false,
// EachRule reads no further rules. The parameter rule is valid only until f returns. If the rules
// change during the listing, the error is ErrDumpInterrupted (see netns.Dump).
func EachRule(n *netns.Namespace, family int, table, chain string, f func(rule netns.Attrs) bool) error {
	what := []*nl.RtAttr{nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(table))}
	if chain != "" {
		what = append(what, nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(chain)))
	}
	req := Request(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, uint8(Family(family)), what...)
	err := n.Each(unix.NETLINK_NETFILTER, req, func(data []byte) bool { return f(netns.Attrs(data[nl.SizeofNfgenmsg:])) })
	if err != nil {
		return fmt.Errorf("read nf_tables chain %s: %w", chain, err)
	}
	return nil
}

// nfMessage is an answer of nf_tables with the attributes of one table, chain or rule.
type nfMessage struct {
	Family uint8 // NFPROTO_*
	netns.Attrs
}

// List returns all objects of one type. message selects the type (NFT_MSG_GET*). family is
// NFPROTO_*, or 0 for all families.
func List(n *netns.Namespace, message int, family uint8, attributes ...*nl.RtAttr) (list []nfMessage, err error) {
	messages, err := netns.Dump(func() ([][]byte, error) {
		return n.Ask(unix.NETLINK_NETFILTER, Request(message, unix.NLM_F_DUMP, family, attributes...))
	})
	for _, m := range messages {
		list = append(list, nfMessage{m[0], netns.Attrs(m[nl.SizeofNfgenmsg:])})
	}
	return list, err
}

// Comment returns the comment of a rule. nft(8) and bridgeveth store the comment as user data of
// the rule. iptables-restore stores it as an iptables match.
func Comment(rule netns.Attrs) string {
	if comment, found := UserText(rule.Get(unix.NFTA_RULE_USERDATA), userdata.TypeComment); found {
		return comment
	}
	info, _ := Match(rule, "comment")
	comment, _, _ := bytes.Cut(info, []byte{0})
	return string(comment)
}

// Match returns the data of the iptables match with this name: struct xt_NAME_info. The result found
// is false if the rule has no such match.
func Match(rule netns.Attrs, name string) (info []byte, found bool) {
	rule.Get(unix.NFTA_RULE_EXPRESSIONS).Each(func(_ uint16, b []byte) {
		e := netns.Attrs(b)
		if match := e.Get(unix.NFTA_EXPR_DATA); string(e.Word(unix.NFTA_EXPR_NAME)) == "match" && string(match.Word(unix.NFTA_MATCH_NAME)) == name {
			info, found = match.Get(unix.NFTA_MATCH_INFO), true
		}
	})
	return info, found
}

// Handle returns the number that identifies a rule within its table.
func Handle(rule netns.Attrs) uint64 { return binary.BigEndian.Uint64(rule.Get(unix.NFTA_RULE_HANDLE)) }

// AnyGeneration is a special value for the parameter "seen" of Transact: the kernel then does not
// check the generation of nf_tables.
const AnyGeneration = 0

// Transact sends a batch of requests to nf_tables as one transaction. The kernel processes all
// requests or none (nfnetlink_rcv_batch in net/netfilter/nfnetlink.c). The parameter seen is the
// generation of nf_tables (see Generation) at which the caller has read the rules. If nf_tables has
// changed since then, the kernel processes no request and the error is ERESTART.
func Transact(n *netns.Namespace, b netns.Batch, seen uint32) error {
	begin := batchFrame(unix.NFNL_MSG_BATCH_BEGIN)
	if seen != AnyGeneration {
		begin.AddData(nl.NewRtAttr(unix.NFNL_BATCH_GENID, binary.BigEndian.AppendUint32(nil, seen)))
	}
	return n.Exchange(unix.NETLINK_NETFILTER, b, begin, batchFrame(unix.NFNL_MSG_BATCH_END))
}

// batchFrame returns the message that begins or ends a transaction: NFNL_MSG_BATCH_*.
func batchFrame(kind int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, 0)
	subsystem := binary.BigEndian.AppendUint16(nil, unix.NFNL_SUBSYS_NFTABLES)
	req.AddData(&nl.Nfgenmsg{Version: nl.NFNETLINK_V0, ResId: binary.NativeEndian.Uint16(subsystem)})
	return req
}

// Generation returns the present generation of nf_tables: a number that each transaction changes.
func Generation(n *netns.Namespace) (uint32, error) {
	answers, err := n.Ask(unix.NETLINK_NETFILTER, Request(unix.NFT_MSG_GETGEN, 0, unix.NFPROTO_UNSPEC))
	if err == nil && len(answers) != 1 {
		err = fmt.Errorf("got %d answers", len(answers))
	}
	if err != nil {
		return 0, fmt.Errorf("read the generation of nf_tables: %w", err)
	}
	return netns.Attrs(answers[0][nl.SizeofNfgenmsg:]).Number(unix.NFTA_GEN_ID), nil
}

// OwnTable is the name of our tables. The tables of the families ip and ip6 translate addresses,
// and drop forwarded packets that the ingress policy of a network denies. The table of the family
// bridge drops frames that a port may not send. If one of our tables drops a packet, no rule of
// another program can accept this packet.
const OwnTable = "bridgeveth"
