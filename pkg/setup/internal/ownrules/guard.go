package ownrules

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// The sets of the guard. An element of the first says how a port is guarded, those of
// the others are the port's own name with one of the addresses that it may send under.
const (
	guardedPorts = "guarded"
	guardedMACs  = "macs"
	guardedIPv4  = "addresses4"
	guardedIPv6  = "addresses6"
)

// The chains that packets of guarded ports go through.
var (
	guardMAC = chain{Name: "guard_mac"}
	guardIP  = chain{Name: "guard_address"}
)

// neighbourRule is the comment of a rule that older builds did without.
const neighbourRule = "neighbour"

// guards are the rules for ports that may send under certain addresses only, in the words
// of nft(8). They are the same for all bridges:
//
//	guard_address:  meta protocol ip iifname . ip saddr != @addresses4 counter drop
//	                meta protocol arp iifname . arp saddr ip != @addresses4 counter drop
//	                meta protocol ip6 iifname . ip6 saddr != @addresses6 counter drop
//	                meta protocol ip6 icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @addresses6 counter drop
//	                meta protocol != ip, arp, ip6 counter drop
//	                jump guard_mac
//	guard_mac:      iifname . ether saddr != @macs counter drop
func guards() feature {
	mac := expr.Payload{Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6}
	f := feature{
		family: unix.AF_BRIDGE, shared: []chain{guardMAC, guardIP},
		sets:  guardSets,
		rules: []ownRule{{chain: guardMAC, comment: "mac", exprs: slices.Concat(notAmong(mac, guardedMACs), nft.Drop())}},
	}
	others := []expr.Any{}
	for _, p := range []struct {
		name     string
		protocol uint16
		set      string
		at       expr.Payload
	}{
		{"ip", unix.ETH_P_IP, guardedIPv4, expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: nft.Source4, Len: 4}},
		{"arp", unix.ETH_P_ARP, guardedIPv4, expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: nft.SourceARP, Len: 4}},
		{"ip6", unix.ETH_P_IPV6, guardedIPv6, expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: nft.Source6, Len: 16}},
	} {
		f.rules = append(f.rules, ownRule{
			chain: guardIP, comment: p.name, exprs: slices.Concat(nft.ProtocolIs(expr.CmpOpEq, p.protocol), notAmong(p.at, p.set), nft.Drop()),
		})
		others = append(others, nft.ProtocolIs(expr.CmpOpNeq, p.protocol)...)
	}
	// What IPv6 has for ARP's answer names in the packet whose MAC it is told of (RFC 4861, 4.4).
	target := expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 8, Len: 16}
	f.rules = append(f.rules,
		ownRule{chain: guardIP, comment: neighbourRule, exprs: slices.Concat(nft.ProtocolIs(expr.CmpOpEq, unix.ETH_P_IPV6), nft.NeighbourAdvertisement(), notAmong(target, guardedIPv6), nft.Drop())},
		ownRule{chain: guardIP, comment: "others", exprs: append(others, nft.Drop()...)},
		ownRule{chain: guardIP, comment: "mac", exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: guardMAC.Name}}})
	return f
}

// guarding is what a bridge needs for such ports: their rules, and what leads there:
//
//	arriving:  iifname vmap @guarded
//
// The latter is there once for each bridge, which costs a packet a look each: what would
// tell bridges apart, "ibrname", is an option of the kernel's that not all have. The guard
// stands before br_netfilter and the bridge's own learning. The kernel has taken a
// VLAN tag off before, so that none hides what is in the packet.
func guarding(net *plan.Network) feature {
	f := guards()
	f.what = "guard against spoofed addresses on " + net.Bridge
	f.former = slices.DeleteFunc(slices.Clone(f.rules), func(r ownRule) bool { return r.comment == neighbourRule })
	leading := ownRule{chain: beforeNAT, comment: net.Comment("guard"), exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Lookup{SourceRegister: 1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: guardedPorts},
	}}
	f.rules, f.former = append(f.rules, leading), append(f.former, leading)
	return f
}

// guardSets are the sets in a table.
func guardSets(t *nftables.Table) []*nftables.Set {
	sets := []*nftables.Set{{
		Table: t, Name: guardedPorts, IsMap: true, KeyType: nftables.TypeIFName, DataType: nftables.TypeVerdict,
		KeyByteOrder: binaryutil.NativeEndian, // without it nft(8) prints each name as "" and refuses to load that
	}}
	for name, kind := range map[string]nftables.SetDatatype{
		guardedMACs: nftables.TypeEtherAddr, guardedIPv4: nftables.TypeIPAddr, guardedIPv6: nftables.TypeIP6Addr,
	} {
		sets = append(sets, &nftables.Set{Table: t, Name: name, Concatenation: true, KeyType: nftables.MustConcatSetType(nftables.TypeIFName, kind)})
	}
	return sets
}

// notAmong matches packets whose port, with a part of the packet, is not in the set.
func notAmong(part expr.Payload, set string) []expr.Any {
	part.DestRegister = 2 // right behind the 16 bytes of register 1
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&part,
		&expr.Lookup{SourceRegister: 1, SetName: set, Invert: true},
	}
}

// allowances are the elements of the guard of a port, the first of them that of
// guardedPorts. The unspecified address is what IPv4 and IPv6 look for duplicates under.
func allowances(p *plan.Port) (list []element) {
	port := interfaceKey(p.Port())
	list = append(list, element{
		family: unix.AF_BRIDGE, set: guardedPorts, key: port, chain: guardChain(p.Guard), comment: portComment(p.Attachment),
	})
	allow := func(set string, address []byte) {
		e := element{family: unix.AF_BRIDGE, set: set, key: slices.Concat(port, address)}
		if !slices.ContainsFunc(list, e.same) {
			list = append(list, e)
		}
	}
	allow(guardedMACs, append(slices.Clone(p.EndMAC()), 0, 0))
	if p.Guard < plan.GuardIP {
		return list
	}
	if len(p.Addresses) == 0 { // it asks a DHCP server for one
		allow(guardedIPv4, netip.IPv4Unspecified().AsSlice())
	}
	for _, a := range p.Addresses {
		set, more := guardedIPv4, []netip.Addr{netip.IPv4Unspecified()}
		if a.Addr().Is6() {
			set, more = guardedIPv6, []netip.Addr{netip.IPv6Unspecified(), rtnl.LinkLocal(p.EndMAC()).Addr()}
		}
		for _, a := range append(more, a.Addr()) {
			allow(set, a.AsSlice())
		}
	}
	return list
}

// interfaceKey is a name as nf_tables compares it: IFNAMSIZ bytes.
func interfaceKey(name string) []byte {
	return append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...)
}

// guardChain is where packets of a port so guarded go.
func guardChain(g plan.Guard) string {
	if g == plan.GuardIP {
		return guardIP.Name
	}
	return guardMAC.Name
}

// GuardPort begins to look at what a port sends.
func GuardPort(n *netns.Namespace, p *plan.Port) error {
	if p.Guard == plan.GuardNone {
		return nil
	}
	if err := addElements(n, allowances(p)); err != nil {
		return fmt.Errorf("guard port %s: %w", p.Port(), err)
	}
	return nil
}

// UnguardPort is the inverse of guardPort. For a port that is not guarded it costs one
// look.
func UnguardPort(n *netns.Namespace, name string) error {
	port := interfaceKey(name)
	found, err := findElement(n, unix.AF_BRIDGE, guardedPorts, port)
	if len(found) == 0 || err != nil {
		return err
	}
	going := found // and with it all that it allows: by it they are found
	for _, name := range []string{guardedMACs, guardedIPv4, guardedIPv6} {
		list, err := listElements(n, unix.AF_BRIDGE, name)
		if err != nil {
			return err
		}
		going = append(going, slices.DeleteFunc(list, func(e element) bool { return !bytes.HasPrefix(e.key, port) })...)
	}
	if err := deleteElements(n, going); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("end the guard of port %s: %w", name, err)
	}
	return nil
}

// GuardedPorts lists the chosen owners of guarded ports.
func GuardedPorts(n *netns.Namespace, chosen func(PortOwner) bool) (list []PortOwner, err error) {
	found, err := listElements(n, unix.AF_BRIDGE, guardedPorts)
	for _, e := range found {
		if o := parseOwner(e.comment); chosen(o) {
			list = append(list, o)
		}
	}
	return list, err
}

// VerifyGuard compares the guard of a port with what guardPort made.
func VerifyGuard(n *netns.Namespace, p *plan.Port) error {
	var wrong []error
	port := interfaceKey(p.Port())
	found, err := findElement(n, unix.AF_BRIDGE, guardedPorts, port)
	if err != nil {
		return err
	}
	if p.Guard == plan.GuardNone || len(found) == 0 {
		return plan.Differ("port "+p.Port()+" guarded", len(found) > 0, p.Guard != plan.GuardNone)
	}
	for _, e := range allowances(p) {
		found, err := findElement(n, unix.AF_BRIDGE, e.set, e.key)
		wrong = append(wrong, err, plan.Differ(fmt.Sprintf("%s of port %s in set %s", guardedAddress(e), p.Port(), e.set), len(found) > 0 || err != nil, true))
	}
	return errors.Join(wrong...)
}

// guardedAddress is the address in an element's key.
func guardedAddress(e element) string {
	rest := e.key[unix.IFNAMSIZ:]
	switch e.set {
	case guardedPorts:
		return "name"
	case guardedMACs:
		return net.HardwareAddr(rest[:6]).String()
	}
	a, _ := netip.AddrFromSlice(rest)
	return a.String()
}
