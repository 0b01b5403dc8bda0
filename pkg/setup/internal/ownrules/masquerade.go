package ownrules

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// EnsureMasquerade gives packets from a bridge's subnets the address of the
// interface that they leave the host by, unless they stay on the bridge or are
// multicast. Those that belong to no connection that is known are dropped, which
// would leave as they are. DeleteRules is its inverse. Two processes at once need a
// lock: see AttachPort.
func EnsureMasquerade(n *netns.Namespace, bridge string, subnets ...netip.Prefix) error {
	missing, err := MissingRules(n, &plan.Network{Bridge: bridge, Masquerade: subnets})
	if err != nil {
		return err
	}
	return plan.RestoreAll(missing)
}

// masquerade is, in the words of nft(8),
//
//	ip saddr SUBNET oifname != BRIDGE ip daddr & 240.0.0.0 != 224.0.0.0 counter masquerade
//
// and, for IPv6, the like; and ahead of it, where packets are forwarded,
//
//	ip saddr SUBNET oifname != BRIDGE ip daddr != TO ct state invalid counter drop
//
// Conntrack translates no packet that it takes for invalid: it would go out with its
// private source, and the far end would answer it by a reset (containernetworking/plugins#816).
// To each TO, where it is to go out so, it may: the answers need not come by this host.
func masquerade(net *plan.Network, subnet netip.Prefix) feature {
	is6 := subnet.Addr().Is6()
	leaves := leaves(net, subnet)
	untranslated, comment := leaves, net.Comment(subnet.String(), "invalid")
	if kept := keptFrom(net, subnet); len(kept) > 0 {
		for _, to := range kept {
			untranslated = slices.Concat(untranslated, nft.Within(nft.Destination4, nft.Destination6, to, expr.CmpOpNeq))
		}
		digest := sha256.Sum256(fmt.Append(nil, kept)) // there is no room for many
		comment += fmt.Sprintf(" but to %x", digest[:4])
	}
	return feature{
		what: fmt.Sprintf("masquerade of %s behind %s", subnet, net.Bridge), family: netns.FamilyOf(subnet.Addr()),
		rules: []ownRule{
			{chain: ForwardFilter, comment: comment, exprs: slices.Concat(untranslated, nft.Invalid(), nft.Drop())},
			{
				chain: postrouting, comment: net.Comment(subnet.String(), "masquerade"),
				exprs: slices.Concat(leaves, nft.NotMulticast(is6), []expr.Any{&expr.Counter{}, &expr.Masq{}}),
			},
		},
	}
}

// keptFrom are the destinations to which packets of a subnet keep their source.
func keptFrom(net *plan.Network, subnet netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(net.MasqueradeNot), func(to netip.Prefix) bool { return to.Addr().Is4() != subnet.Addr().Is4() })
}

// masqueradeNot is
//
//	ip saddr SUBNET oifname != BRIDGE ip daddr TO counter accept
//
// ahead of the masquerade of SUBNET. It ends our own chain only, which has rules for what stays
// on the bridge, too: see publishing.
func masqueradeNot(net *plan.Network, subnet, to netip.Prefix) feature {
	return feature{
		what: fmt.Sprintf("no masquerade of %s behind %s to %s", subnet, net.Bridge, to), family: netns.FamilyOf(subnet.Addr()),
		rules: []ownRule{{
			chain: postrouting, comment: net.Comment(subnet.String(), "to", to.String()), first: true,
			exprs: slices.Concat(leaves(net, subnet), nft.Destination(to), nft.Verdict(expr.VerdictAccept)),
		}},
	}
}

// leaves matches packets of a subnet that go elsewhere than back to the network.
func leaves(net *plan.Network, subnet netip.Prefix) []expr.Any {
	return slices.Concat(nft.Source(subnet), nft.InterfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, net.RoutedBy()))
}
