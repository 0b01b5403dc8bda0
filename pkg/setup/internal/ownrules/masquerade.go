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

// EnsureMasquerade adds the rules that masquerade packets from the subnets of a bridge: nf_tables replaces
// their source address by that of the interface through which the packets leave the host. Multicast packets,
// and packets that stay on the bridge, keep their source address. Packets that conntrack cannot translate are
// dropped. DeleteRules is the inverse. Processes that call EnsureMasquerade at the same time need a lock (see
// Host.AttachPort).
func EnsureMasquerade(n *netns.Namespace, bridge string, subnets ...netip.Prefix) error {
	missing, err := MissingRules(n, &plan.Network{Bridge: bridge, Masquerade: subnets}, nil)
	if err != nil {
		return err
	}
	return plan.RestoreAll(missing)
}

// masquerade returns the feature that masquerades packets from a subnet:
//
//	ip saddr SUBNET oifname != BRIDGE ip daddr & 240.0.0.0 != 224.0.0.0 counter masquerade
//
// The rule for IPv6 excludes the multicast addresses of IPv6. A second rule, in the chain of forwarded packets,
// drops packets that cannot be translated:
//
//	ct state invalid ip saddr SUBNET oifname != BRIDGE ip daddr != TO counter drop
//
// Conntrack does not translate a packet that it considers invalid. The packet would leave with its private
// source address, and the receiver would answer with a reset (containernetworking/plugins#816). TO stands for a
// destination: packets to TO keep their source address (see masqueradeNot). The rule has a match "ip daddr !=
// TO" for each such destination. Replies from TO may bypass this host. Conntrack then sees only one direction
// of the connection and considers its packets invalid, so the rule must not drop packets to TO.
func masquerade(net *plan.Network, subnet netip.Prefix) feature {
	is6 := subnet.Addr().Is6()
	leaves := leavesNetwork(net, subnet)
	untranslated, comment := leaves, net.Comment(subnet.String(), "invalid")
	if kept := unmasqueraded(net, subnet); len(kept) > 0 {
		for _, to := range kept {
			untranslated = slices.Concat(untranslated, nft.Within(nft.Destination4, nft.Destination6, to, expr.CmpOpNeq))
		}
		digest := sha256.Sum256(fmt.Append(nil, kept)) // a comment has no room for many subnets, so it contains a digest of them
		comment += fmt.Sprintf(" but to %x", digest[:4])
	}
	return feature{
		what: fmt.Sprintf("masquerade of %s behind %s", subnet, net.Bridge), family: netns.FamilyOf(subnet.Addr()),
		rules: []ownRule{
			{chain: ForwardFilter, comment: comment, exprs: slices.Concat(nft.Invalid(), untranslated, nft.Drop())},
			{
				chain: postrouting, comment: net.Comment(subnet.String(), "masquerade"),
				exprs: slices.Concat(leaves, nft.NotMulticast(is6), []expr.Any{&expr.Counter{}, &expr.Masq{}}),
			},
		},
	}
}

func unmasqueraded(net *plan.Network, subnet netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(net.MasqueradeNot), func(to netip.Prefix) bool { return to.Addr().Is4() != subnet.Addr().Is4() })
}

// masqueradeNot returns the feature that keeps the source address of packets from a subnet to one destination
// (TO):
//
//	ip saddr SUBNET oifname != BRIDGE ip daddr TO counter accept
//
// The rule comes before the masquerade rule of SUBNET. Its verdict accept ends only our own chain. It must not
// match packets that stay on the bridge, because these need the masquerade rules of hostPortFeature.
func masqueradeNot(net *plan.Network, subnet, to netip.Prefix) feature {
	return feature{
		what: fmt.Sprintf("no masquerade of %s behind %s to %s", subnet, net.Bridge, to), family: netns.FamilyOf(subnet.Addr()),
		rules: []ownRule{{
			chain: postrouting, comment: net.Comment(subnet.String(), "to", to.String()), first: true,
			exprs: slices.Concat(leavesNetwork(net, subnet), nft.Destination(to), nft.Verdict(expr.VerdictAccept)),
		}},
	}
}

func leavesNetwork(net *plan.Network, subnet netip.Prefix) []expr.Any {
	return slices.Concat(nft.Source(subnet), nft.InterfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, net.RoutedBy()))
}
