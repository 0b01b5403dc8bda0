package ownrules

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/conntrack"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/localnet"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// The names of the maps of host ports: one map for host ports on all addresses of the host, and one for host
// ports on a single address. nft(8) prints an element of a map in this form, where PORT is the name of the
// container's bridge port:
//
//	tcp . 8080 comment "PORT bridgeveth/NETWORK/CONTAINER/INTERFACE" : 10.88.0.2 . 80
const (
	portsOfAny = "ports"
	portsOfOne = "ports_of_address"
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
		sets: portMaps(family),
		rules: []ownRule{
			{chain: toHostPorts, comment: "labelled, one address", exprs: slices.Concat([]expr.Any{daddr}, dnat(register+words, portsOfOne))},
			{chain: toHostPorts, comment: "labelled, any address", exprs: dnat(register, portsOfAny)},
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

func portMaps(family int) (maps []nft.Set) {
	address := nftables.TypeIPAddr
	if family == unix.AF_INET6 {
		address = nftables.TypeIP6Addr
	}
	key := []nftables.SetDatatype{nftables.TypeIFName, address, nftables.TypeInetProto, nftables.TypeInetService}
	for i, name := range []string{portsOfAny, portsOfOne, portsWaiting} {
		maps = append(maps, nft.Set{
			Name: name, Key: nftables.MustConcatSetType(key[len(key)-2-i:]...), Value: nftables.MustConcatSetType(address, nftables.TypeInetService),
		})
	}
	return maps
}

// Publish adds all host ports of an attachment or none. If another attachment has one of the host ports, the
// error is a PortTakenError. But if the bridge port of that attachment does not exist any more, Publish deletes
// the host ports of that attachment and continues.
func Publish(n *netns.Namespace, p *plan.Port) error {
	list := mappings(p.HostPorts, p.Addresses)
	if len(list) == 0 {
		return nil
	}
	return nft.AtOneGeneration(n, func(seen uint32) error { return claim(n, seen, list, p.Attachment) })
}

// claim adds mappings for an attachment, and deletes the mappings that the new mappings replace. It searches for
// conflicts itself, because the kernel detects no conflict between mappings with different keys. The error is
// ERESTART if nf_tables has changed since the generation in the parameter seen.
func claim(n *netns.Namespace, seen uint32, list []Mapping, of plan.Attachment) error {
	gone, claimed, err := assign(n, list, of)
	if err != nil {
		return err
	}
	added := elementsOf(claimed)
	for i := range added {
		added[i].comment = PortComment(of)
	}
	if err := changeElements(n, seen, elementsOf(gone), added); err != nil {
		return fmt.Errorf("add host ports: %w", err)
	}
	return deleteFlows(n, append(gone, claimed...))
}

// assign searches for conflicts and returns the mappings to add (claimed) and to delete (gone). The mappings to
// delete are the old mappings of the attachment itself, and the mappings of bridge ports that do not exist any
// more. If another interface of the same container already serves a host port, assign returns a waiting mapping
// for this host port (see portsWaiting). A host port on all addresses conflicts with the same host
// port on one address, unless both belong to the same container.
func assign(n *netns.Namespace, list []Mapping, of plan.Attachment) (gone, claimed []Mapping, err error) {
	waiting, err := listWaiting(n)
	if err != nil {
		return nil, nil, err
	}
	alive := map[string]bool{}
	for _, m := range list {
		conflicting, err := conflicting(n, m)
		if err != nil {
			return nil, nil, err
		}
		var present []Mapping
		for _, r := range append(conflicting, waiting...) {
			if !m.overlaps(r) || slices.ContainsFunc(gone, func(g Mapping) bool { return g.same(r.element) }) {
				continue // r does not conflict with m, or gone already has r
			}
			exists, known := alive[r.Owner.Port]
			if !known && r.Owner.Port != of.Port() {
				if exists, err = portExists(n, r.Owner); err != nil {
					return nil, nil, err
				}
				alive[r.Owner.Port] = exists
			}
			if exists {
				present = append(present, r)
			} else {
				gone = append(gone, r)
			}
		}
		place, err := m.beside(present, of)
		if err != nil {
			return nil, nil, err
		}
		claimed = append(claimed, place)
	}
	return gone, claimed, nil
}

// conflicting returns the existing mappings that match packets for the same host address, protocol and host
// port as m. A mapping without an address matches every address.
func conflicting(n *netns.Namespace, m Mapping) (list []Mapping, err error) {
	if m.set == portsOfAny {
		if list, err = listMappings(n, m.family, portsOfOne); err != nil {
			return nil, err
		}
		list = slices.DeleteFunc(list, func(found Mapping) bool { return !m.overlaps(found) })
	}
	same := []Mapping{m}
	if m.set == portsOfOne {
		same = append(same, Mapping{element: element{family: m.family, set: portsOfAny, key: m.key[len(m.key)-portKey:]}})
	}
	for _, s := range same {
		found, err := find(n, s)
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	return list, nil
}

// Unpublish deletes the host ports of an attachment. The parameter known is optional. If it contains all host
// ports of the attachment, Unpublish is faster, because it need not read the host ports of all containers.
func Unpublish(n *netns.Namespace, a plan.Attachment, known []plan.HostPort) error {
	ours := func(m Mapping) bool { return m.Owner.Port == a.Port() }
	list, err := findKnown(n, known, ours)
	if err == nil && len(list) == 0 {
		list, err = Published(n, ours)
	}
	if err != nil {
		return err
	}
	return DeleteMappings(n, list)
}

// findKnown looks up the host ports in the parameter known. It returns the mappings that serve a host port, and
// the mappings that wait for a host port (see portsWaiting). The function ours selects the mappings of the
// attachment. If a host port in known has no mapping, findKnown returns nothing, because the attachment may have
// host ports that are not in known.
func findKnown(n *netns.Namespace, known []plan.HostPort, ours func(Mapping) bool) (list []Mapping, err error) {
	if len(known) == 0 {
		return nil, nil
	}
	waiting, err := listWaiting(n)
	if err != nil {
		return nil, err
	}
	waiting = slices.DeleteFunc(waiting, func(m Mapping) bool { return !ours(m) })
	both := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	for _, port := range known {
		before, waits := len(list), false
		for _, m := range mappings([]plan.HostPort{port}, both) {
			found, err := find(n, m)
			if err != nil {
				return nil, err
			}
			list = append(list, slices.DeleteFunc(found, func(m Mapping) bool { return !ours(m) })...)
			waits = waits || slices.ContainsFunc(waiting, func(w Mapping) bool { return w.serving().same(m.element) })
		}
		if len(list) == before && !waits {
			return nil, nil
		}
	}
	return append(list, waiting...), nil
}

// DeleteMappings deletes host ports and the conntrack entries for UDP packets to them. If another interface of
// the container waits for a host port, that interface serves the host port from then on.
func DeleteMappings(n *netns.Namespace, list []Mapping) error {
	if len(list) == 0 {
		return nil
	}
	err := deleteOrReplace(n, list)
	if errors.Is(err, unix.ENOENT) && len(list) > 1 { // another process has deleted one mapping, so the transaction failed
		err = nil
		for _, m := range list {
			err = errors.Join(err, DeleteMappings(n, []Mapping{m}))
		}
		return err
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete host ports: %w", err)
	}
	return deleteFlows(n, list)
}

// deleteFlows deletes the conntrack entries of UDP host ports whose mapping was added or deleted. Otherwise
// conntrack would send packets of old flows to the old container for as long as such packets arrive.
func deleteFlows(n *netns.Namespace, list []Mapping) error {
	var filters []conntrack.Filter
	for _, m := range list {
		if m.port.Protocol != unix.IPPROTO_UDP || m.set == portsWaiting {
			continue
		}
		f := conntrack.Filter{Family: m.family, Protocol: m.port.Protocol, Port: m.port.Port}
		if m.port.Named() {
			f.Destination = m.port.Address
		}
		filters = append(filters, f)
	}
	return conntrack.Delete(n, filters...)
}
