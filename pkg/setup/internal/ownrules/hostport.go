package ownrules

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/elements"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/hostports"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/localnet"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// The forms of the rules in older versions of bridgeveth. All of these versions guarded the host's loopback by
// a rule in nf_tables.
const (
	unlabelled = iota // the rules masqueraded each redirected connection, not only those with the label
	labelled
)

// loopbackRule is the last word in the comment of rules about the host's loopback addresses.
const loopbackRule = "loopback"

// loopback4 is the IPv4 loopback network, RFC 1122, section 3.2.1.3.
var loopback4 = netip.MustParsePrefix("127.0.0.0/8")

// hostPortFeature returns the feature of a subnet whose containers have host ports: the rules of
// redirectFeature, and masquerade rules. Without masquerade, replies would bypass the host (rule 1) or could not
// reach the client (rule 2):
//
//	postrouting:  ct label 98 ip saddr SUBNET ip daddr SUBNET masquerade       # from the bridge, to the bridge
//	              ct label 98 ip saddr 127.0.0.0/8 oifname BRIDGE masquerade   # from the host's loopback
//
// The rules of redirectFeature set the conntrack label 98. A connection that another program (such as
// kube-proxy) redirects has no label and keeps its source address. Rule 2 works only if the kernel lets packets
// from 127.0.0.1 leave through the bridge (package localnet).
func hostPortFeature(net *plan.Network, subnet netip.Prefix) feature {
	masq := []expr.Any{&expr.Counter{}, &expr.Masq{}}
	f := redirectFeature(netns.FamilyOf(subnet.Addr()))
	f.what = fmt.Sprintf("host ports of %s behind %s", subnet, net.Bridge)
	older := func(form int, chain chain, words ...string) {
		f.former[form] = append(f.former[form], ownRule{chain: chain, comment: net.Comment(append([]string{subnet.String()}, words...)...)})
	}
	older(unlabelled, postrouting, "hostports")
	older(labelled, postrouting, "own hostports")
	f.rules = append(f.rules, ownRule{
		chain: postrouting, comment: net.Comment(subnet.String(), "own hostports"),
		exprs: slices.Concat(nft.Labelled(), nft.Source(subnet), nft.Destination(subnet), masq),
	})
	if subnet.Addr().Is6() {
		return f // in IPv6, a packet from ::1 cannot leave the host
	}
	f.rules = append(f.rules, ownRule{
		chain: postrouting, comment: net.Comment(subnet.String(), "own", loopbackRule),
		exprs: slices.Concat(nft.Labelled(), nft.Source(loopback4), nft.InterfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, net.RoutedBy()), masq),
	})
	older(unlabelled, postrouting, loopbackRule)
	older(labelled, postrouting, "own", loopbackRule)
	for _, name := range net.Links() {
		older(unlabelled, beforeNAT, name, loopbackRule)
		older(labelled, beforeNAT, name, loopbackRule)
	}
	return f
}

// repliesToLoopback returns the rule that marks replies of host ports to the host's loopback, so that the
// loopback guard (package localnet) accepts them:
//
//	answers:  ip daddr 127.0.0.0/8 ct label 98 ct direction reply meta mark set meta mark | 0x1000
func repliesToLoopback() ownRule {
	reply := []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}}, // IP_CT_DIR_REPLY
	}
	return ownRule{chain: answers, comment: "answers to loopback", exprs: slices.Concat(nft.Destination(loopback4), nft.Labelled(), reply, nft.OrMark(localnet.Mark))}
}

// redirectFeature returns the rules, common to all bridges, that redirect packets for host ports to containers:
//
//	prerouting:          ip daddr != 127.0.0.0/8 fib daddr type local jump hostports
//	locally:             fib daddr type local jump hostports
//	hostports:           ct label set 98 dnat ip to ip daddr . meta l4proto . th dport map @ports_of_address
//	                     ct label set 98 dnat ip to meta l4proto . th dport map @ports
//
// A packet from another host to 127.0.0.1 must not reach a host port. The kernel drops such packets (martian
// destinations), but only after prerouting, so the rule must not redirect them. IPv6 needs no such match,
// because the kernel accepts no packet from another host to ::1 (ip6_rcv_core in net/ipv6/ip6_input.c).
//
// The label marks connections that these rules redirect. nft(8) prints the label first, but our rule sets the
// label after the lookup in the map. A lookup without a result ends the rule, so other connections get no label.
// If "nft -f" has loaded the rule from a saved ruleset, the rule sets the label before the lookup. Connections
// that other programs redirect then have the label too, and are masqueraded if they stay within the network. A
// bit of the packet mark cannot replace the label, because other programs save, restore and compare the whole
// mark.
func redirectFeature(family int) feature {
	const register = 8 // NFT_REG32_00: the first four bytes of NFT_REG_1
	offset, words := uint32(nft.Destination4), uint32(1)
	if family == unix.AF_INET6 {
		offset, words = nft.Destination6, 4
	}
	dnat := func(at uint32, set string) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: at},
			&expr.Payload{DestRegister: at + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Lookup{SourceRegister: register, DestRegister: register, IsDestRegSet: true, SetName: set},
			&expr.Counter{},
			&expr.Immediate{Register: unix.NFT_REG_4, Data: nft.LabelBit()}, // register 4 does not overlap the value of the lookup
			&expr.Ct{Key: expr.CtKeyLABELS, Register: unix.NFT_REG_4, SourceRegister: true},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(nft.Family(family)), RegAddrMin: register, RegProtoMin: register + words},
		}
	}
	daddr := &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4 * words}
	jump := slices.Concat(nft.ToHost(), []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: toHostPorts.Name}})
	arriving := jump
	if family == unix.AF_INET {
		arriving = slices.Concat(nft.Within(nft.Destination4, nft.Destination6, loopback4, expr.CmpOpNeq), jump)
	}
	f := feature{
		family: family, shared: []chain{toHostPorts, prerouting, output},
		sets: hostports.Maps(family),
		rules: []ownRule{
			{chain: toHostPorts, comment: "labelled, one address", exprs: slices.Concat([]expr.Any{daddr}, dnat(register+words, hostports.OneAddress))},
			{chain: toHostPorts, comment: "labelled, any address", exprs: dnat(register, hostports.AnyAddress)},
			{chain: prerouting, comment: "host ports of others than loopback", exprs: arriving},
			{chain: output, comment: "host ports", exprs: jump},
		},
		former: [][]ownRule{
			unlabelled: {
				{chain: toHostPorts, comment: "one address"}, {chain: toHostPorts, comment: "any address"},
				{chain: prerouting, comment: "host ports"}, {chain: output, comment: "host ports"},
			},
			labelled: {
				{chain: toHostPorts, comment: "labelled, one address"}, {chain: toHostPorts, comment: "labelled, any address"},
				{chain: prerouting, comment: "host ports"}, {chain: output, comment: "host ports"},
			},
		},
	}
	if family == unix.AF_INET {
		f.shared, f.rules = append(f.shared, answers), append(f.rules, repliesToLoopback())
	}
	return f
}

// addHostPorts adds a feature of hostPortFeature. If the maps of host ports do not exist, the same transaction
// fills the new maps with the host ports of the known attachments. Otherwise, ADD could give the host port of a
// running container to another container until the next repair. The function known returns the attachments
// that had host ports, with the fields Attachment, Addresses and HostPorts.
func addHostPorts(n *netns.Namespace, f feature, known func() ([]*plan.Port, error)) error {
	filled := false
	f.elements = func(n *netns.Namespace) ([]elements.Element, error) {
		filled = true
		return hostports.Known(n, f.family, known)
	}
	if err := addFeature(n, f); err != nil || !filled {
		return err
	}
	return hostports.DeleteOrphans(n)
}
