package ownrules

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/elements"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// The names of the guard's map and sets. In the map guardedPorts, the key is the name of a port, and the value is
// the chain for packets of that port. In the sets, the key is the name of a port together with an address that
// the port may send from. guardedTargets holds the same ports and addresses as guardedIPv6. It is a separate set,
// because the type of its keys is different (see guardSets): nft(8) prints all keys of a set by the type that the
// set declares.
const (
	guardedPorts   = "guarded"
	guardedMACs    = "macs"
	guardedIPv4    = "addresses4"
	guardedIPv6    = "addresses6"
	guardedTargets = "targets"
)

var (
	guardMAC = chain{Name: "guard_mac"}
	guardIP  = chain{Name: "guard_address"}
)

// leadingRule is the last word in the comment of the rule that sends a bridge's packets to the guard.
const leadingRule = "guard"

// guardRules returns the rules that drop packets whose source address is not allowed for their port. The rules
// are the same for all bridges:
//
//	guard_address:  meta protocol ip iifname . ip saddr != @addresses4 counter drop
//	                meta protocol arp iifname . arp saddr ip != @addresses4 counter drop
//	                meta protocol ip6 iifname . ip6 saddr != @addresses6 counter drop
//	                ip6 nexthdr ipv6-icmp icmpv6 type nd-neighbor-advert iifname . @nh,384,128 != @targets counter drop
//	                ip6 nexthdr != ipv6-icmp icmpv6 type nd-neighbor-advert counter drop
//	                meta protocol != ip, arp, ip6 counter drop
//	                jump guard_mac
//	guard_mac:      iifname . ether saddr != @macs counter drop
//
// A neighbour advertisement corresponds to the ARP reply of IPv4: it contains the MAC address of its target (RFC
// 4861, section 4.4). The rule reads the target at an offset from the network header (@nh), not from the
// transport header. nft 1.1 would print a transport offset as "icmpv6 taddr", and nft 1.0.6 could not load a
// saved ruleset with these words. The offset from the network header is right only if the packet has no extension
// headers. Therefore another rule drops neighbour advertisements with extension headers. Fragments need no rule,
// because hosts ignore fragmented neighbour advertisements (RFC 6980).
func guardRules() []ownRule {
	source := func(base expr.PayloadBase, offset, length uint32) expr.Payload {
		return expr.Payload{Base: base, Offset: offset, Len: length}
	}
	const target = 48 // offset of the target in bytes, from the beginning of the IPv6 header
	none := slices.Concat(
		nft.ProtocolIs(expr.CmpOpNeq, unix.ETH_P_IP), nft.ProtocolIs(expr.CmpOpNeq, unix.ETH_P_ARP), nft.ProtocolIs(expr.CmpOpNeq, unix.ETH_P_IPV6))
	drop := func(in chain, comment string, match ...[]expr.Any) ownRule {
		return ownRule{chain: in, comment: comment, exprs: slices.Concat(slices.Concat(match...), nft.Drop())}
	}
	return []ownRule{
		drop(guardMAC, "MAC address", notInSet(source(expr.PayloadBaseLLHeader, 6, 6), guardedMACs)),
		drop(guardIP, "IPv4 source", nft.ProtocolIs(expr.CmpOpEq, unix.ETH_P_IP), notInSet(source(expr.PayloadBaseNetworkHeader, nft.Source4, 4), guardedIPv4)),
		drop(guardIP, "ARP sender", nft.ProtocolIs(expr.CmpOpEq, unix.ETH_P_ARP), notInSet(source(expr.PayloadBaseNetworkHeader, nft.SourceARP, 4), guardedIPv4)),
		drop(guardIP, "IPv6 source", nft.ProtocolIs(expr.CmpOpEq, unix.ETH_P_IPV6), notInSet(source(expr.PayloadBaseNetworkHeader, nft.Source6, 16), guardedIPv6)),
		drop(guardIP, "neighbour advertisement", nft.NextHeaderIs(expr.CmpOpEq, unix.IPPROTO_ICMPV6), nft.NeighbourAdvertisement(),
			notInSet(source(expr.PayloadBaseNetworkHeader, target, 16), guardedTargets)),
		drop(guardIP, "neighbour advertisement behind extension headers", nft.NextHeaderIs(expr.CmpOpNeq, unix.IPPROTO_ICMPV6), nft.TransportIs(unix.IPPROTO_ICMPV6), nft.NeighbourAdvertisement()),
		drop(guardIP, "other protocols", none),
		{chain: guardIP, comment: "MAC address", exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: guardMAC.Name}}},
	}
}

// formerGuardRules are the rules of older versions of bridgeveth, by chain and comment. The rule for neighbour
// advertisements existed only in some of these versions.
var formerGuardRules = []ownRule{
	{chain: guardMAC, comment: "mac"},
	{chain: guardIP, comment: "ip"}, {chain: guardIP, comment: "arp"}, {chain: guardIP, comment: "ip6"},
	{chain: guardIP, comment: "others"}, {chain: guardIP, comment: "mac"},
}

// guardFeature returns the feature of a bridge with guarded ports: the rules of the guard, and the leading rule
// of the bridge, which sends packets to the guard:
//
//	arriving:  iifname vmap @guarded
//
// Each bridge with guarded ports has a leading rule, but each leading rule matches the packets of all bridges. So
// a packet costs one lookup for each of these bridges. We do not use the match for packets of one bridge
// ("ibrname"), because this match needs a kernel option that not all kernels have. The chain runs before
// br_netfilter and before the bridge learns MAC addresses. The kernel removes a VLAN tag before the chain runs,
// so a tag cannot hide the contents of a packet.
func guardFeature(net *plan.Network) feature {
	leading := leadingTo(net.Comment(leadingRule))
	return feature{
		family: unix.AF_BRIDGE, what: "guard against spoofed addresses on " + net.Bridge,
		rules:   append(guardRules(), leading),
		former:  [][]ownRule{append(slices.Clone(formerGuardRules), leading)},
		restore: func(n *netns.Namespace) error { return restoreGuard(n, leading) },
	}
}

// leadingTo returns the rule that sends packets to the guard, with a comment that names a bridge.
func leadingTo(comment string) ownRule {
	return ownRule{chain: beforeNAT, comment: comment, exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Lookup{SourceRegister: 1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: guardedPorts},
	}}
}

// restoreGuard adds the leading rule of a bridge. If another rule of the guard is missing, restoreGuard creates
// the whole table again, with the elements of all ports and the leading rules of all bridges. This happens, for
// instance, if an older version of bridgeveth wrote the table. One transaction replaces the old table, so no
// packet passes without the guard.
func restoreGuard(n *netns.Namespace, leading ownRule) error {
	t := table(unix.AF_BRIDGE)
	err := nft.Modify(n, t, func(c *nft.Change) error {
		present, err := Rules(n, unix.AF_BRIDGE)
		if err != nil {
			return err
		}
		wanted := []ownRule{leading}
		if !present.have(guardRules()) {
			guards, err := guardElements(n)
			if err != nil {
				return err
			}
			c.AddTable() // DeleteTable fails if the table does not exist
			c.DeleteTable()
			c.AddTable()
			for _, s := range guardSets() {
				c.AddSet(s)
			}
			for comment := range present[beforeNAT.Name] {
				if comment != leading.comment {
					wanted = append(wanted, leadingTo(comment))
				}
			}
			addRules(c, t, append(guardRules(), wanted...)...)
			c.Append(elements.Batch(nil, guards))
		} else {
			addRules(c, t, leading)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("add the guard against spoofed addresses: %w", err)
	}
	return nil
}

// guardElements returns the elements of all guarded ports. It copies the elements of guardedTargets from
// guardedIPv6, because older versions of bridgeveth write only guardedIPv6.
func guardElements(n *netns.Namespace) (list []elements.Element, err error) {
	for _, set := range []string{guardedPorts, guardedMACs, guardedIPv4, guardedIPv6} {
		found, err := elements.List(n, unix.AF_BRIDGE, set)
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
		if set == guardedIPv6 {
			for _, e := range found {
				e.Set = guardedTargets
				list = append(list, e)
			}
		}
	}
	return list, nil
}

func guardSets() []nft.Set {
	const target, bits = 384, 128 // offset and length of the target in bits, see guardRules
	of := func(kind nftables.SetDatatype) nftables.SetDatatype {
		return nftables.MustConcatSetType(nftables.TypeIFName, kind)
	}
	targets := of(nftables.TypeInteger)
	targets.Bytes = unix.IFNAMSIZ + bits/8
	return []nft.Set{
		{Name: guardedPorts, Key: nftables.TypeIFName, Value: nftables.TypeVerdict, UserData: nft.HostOrder()},
		{Name: guardedMACs, Key: of(nftables.TypeEtherAddr)},
		{Name: guardedIPv4, Key: of(nftables.TypeIPAddr)},
		{Name: guardedIPv6, Key: of(nftables.TypeIP6Addr)},
		{Name: guardedTargets, Key: targets, UserData: nft.TypeofPortAndPayload(target, bits)},
	}
}

// notInSet matches packets whose key is not in the set. The key is the name of a port, followed by an address.
// The parameter "part" selects this address in the packet.
func notInSet(part expr.Payload, set string) []expr.Any {
	part.DestRegister = 2 // register 1 holds the name of the port in 16 bytes
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&part,
		&expr.Lookup{SourceRegister: 1, SetName: set, Invert: true},
	}
}

// allowedElements returns the set elements for one guarded port: the port itself first, then each MAC and IP
// address that it may send from. The unspecified IP addresses are allowed too, because hosts send from them to
// detect duplicate addresses.
func allowedElements(p *plan.Port) (list []elements.Element) {
	port := elements.InterfaceKey(p.Port())
	list = append(list, elements.Element{
		Family: unix.AF_BRIDGE, Set: guardedPorts, Key: port, Chain: guardChain(p.Guard), Comment: elements.Comment(p.Attachment),
	})
	allow := func(set string, address []byte) {
		e := elements.Element{Family: unix.AF_BRIDGE, Set: set, Key: slices.Concat(port, address)}
		if !slices.ContainsFunc(list, e.Same) {
			list = append(list, e)
		}
	}
	allow(guardedMACs, append(slices.Clone(p.EndMAC()), 0, 0))
	if p.Guard < plan.GuardIP {
		return list
	}
	if len(p.Addresses) == 0 { // a port without addresses asks a DHCP server for one
		allow(guardedIPv4, netip.IPv4Unspecified().AsSlice())
	}
	for _, a := range p.Addresses {
		set, more := guardedIPv4, []netip.Addr{netip.IPv4Unspecified()}
		if a.Addr().Is6() {
			set, more = guardedIPv6, []netip.Addr{netip.IPv6Unspecified(), rtnl.LinkLocal(p.EndMAC()).Addr()}
		}
		for _, a := range append(more, a.Addr()) {
			allow(set, a.AsSlice())
			if set == guardedIPv6 {
				allow(guardedTargets, a.AsSlice())
			}
		}
	}
	return list
}

// guardChain returns the chain that checks the packets of a port with this guard.
func guardChain(g plan.Guard) string {
	if g == plan.GuardIP {
		return guardIP.Name
	}
	return guardMAC.Name
}

// GuardPort adds the guard of a port. From then on, nf_tables drops packets of this port whose source address is
// not allowed.
func GuardPort(n *netns.Namespace, p *plan.Port) error {
	if p.Guard == plan.GuardNone {
		return nil
	}
	if err := elements.Add(n, allowedElements(p)); err != nil {
		return fmt.Errorf("guard port %s: %w", p.Port(), err)
	}
	return nil
}

// UnguardPort is the inverse of GuardPort. If the port has no guard, UnguardPort only looks up one element.
func UnguardPort(n *netns.Namespace, name string) error {
	found, err := elements.Find(n, unix.AF_BRIDGE, guardedPorts, elements.InterfaceKey(name))
	if len(found) == 0 || err != nil {
		return err
	}
	return UnguardPorts(n, []elements.Owner{{Port: name}})
}

// UnguardPorts deletes the guards of many ports, and reads each set only once for this. One transaction deletes all
// elements. With two transactions, a process that is killed between them could delete only the element in
// guardedPorts. UnguardPort would then not find the other elements.
//
// The transaction fails if another process has deleted one of the elements. UnguardPorts therefore starts again if
// nf_tables has changed between reading and sending.
func UnguardPorts(n *netns.Namespace, ports []elements.Owner) error {
	if len(ports) == 0 {
		return nil
	}
	err := nft.Modify(n, table(unix.AF_BRIDGE), func(c *nft.Change) error {
		gone, err := elementsOfPorts(n, ports)
		c.Append(elements.Batch(gone, nil))
		return err
	})
	if err != nil {
		return fmt.Errorf("delete the guards of %d ports: %w", len(ports), err)
	}
	return nil
}

// elementsOfPorts returns the elements that these ports have in the map and the sets of the guard.
func elementsOfPorts(n *netns.Namespace, ports []elements.Owner) (list []elements.Element, err error) {
	chosen := map[string]bool{}
	for _, o := range ports {
		chosen[string(elements.InterfaceKey(o.Port))] = true
	}
	for _, set := range []string{guardedPorts, guardedMACs, guardedIPv4, guardedIPv6, guardedTargets} {
		all, err := elements.List(n, unix.AF_BRIDGE, set)
		if err != nil {
			return nil, err
		}
		for _, e := range all {
			if chosen[string(e.Key[:min(len(e.Key), unix.IFNAMSIZ)])] {
				list = append(list, e)
			}
		}
	}
	return list, nil
}

// GuardedPorts returns those owners of guarded ports that the function chosen selects.
func GuardedPorts(n *netns.Namespace, chosen func(elements.Owner) bool) (list []elements.Owner, err error) {
	found, err := elements.List(n, unix.AF_BRIDGE, guardedPorts)
	for _, e := range found {
		if o := elements.ParseOwner(e.Comment); chosen(o) {
			list = append(list, o)
		}
	}
	return list, err
}

// VerifyGuard compares the guard of a port, which is its list of allowed source addresses, with the plan.
func VerifyGuard(n *netns.Namespace, p *plan.Port) error {
	var wrong []error
	port := elements.InterfaceKey(p.Port())
	found, err := elements.Find(n, unix.AF_BRIDGE, guardedPorts, port)
	if err != nil {
		return err
	}
	if p.Guard == plan.GuardNone || len(found) == 0 {
		return plan.Differ("port "+p.Port()+" guarded", len(found) > 0, p.Guard != plan.GuardNone)
	}
	targets, err := elements.HasSet(n, unix.AF_BRIDGE, guardedTargets)
	if err != nil {
		return err
	}
	for _, e := range allowedElements(p) {
		if e.Set == guardedTargets && !targets {
			continue // the set does not exist because an older version of bridgeveth wrote the table; MissingRules returns a difference for it
		}
		found, err := elements.Find(n, unix.AF_BRIDGE, e.Set, e.Key)
		wrong = append(wrong, err, plan.Differ(fmt.Sprintf("%s of port %s in set %s", guardedAddress(e), p.Port(), e.Set), len(found) > 0 || err != nil, true))
	}
	return errors.Join(wrong...)
}

func guardedAddress(e elements.Element) string {
	rest := e.Key[unix.IFNAMSIZ:]
	switch e.Set {
	case guardedPorts:
		return "name"
	case guardedMACs:
		return net.HardwareAddr(rest[:6]).String()
	}
	a, _ := netip.AddrFromSlice(rest)
	return a.String()
}
