package setup

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Ingress says who may open connections to a network's containers. Published ports
// are open to all, and so is the host's way to its containers, whichever it is.
type Ingress int

const (
	// IngressOpen lets everybody.
	IngressOpen Ingress = iota
	// IngressSameBridge keeps out what comes by another bridge: other networks.
	IngressSameBridge
	// IngressIsolated keeps out containers of the same network too. Their ports are
	// isolated on the bridge, which br_netfilter's translation of bridged packets to
	// published ports does not get around.
	IngressIsolated
)

var ingressNames = []string{"open", "same-bridge", "isolated"}

// ParseIngress reads an Ingress by its name: open, same-bridge or isolated, as in the
// reference plugin firewall.
func ParseIngress(name string) (Ingress, error) {
	if i := slices.Index(ingressNames, name); i >= 0 {
		return Ingress(i), nil
	}
	return 0, fmt.Errorf("%q is none of %s", name, strings.Join(ingressNames, ", "))
}

func (i Ingress) String() string { return ingressNames[i] }

// ingressRule is what keeps connections out of a bridge, in the words of nft(8),
//
//	iifkind "bridge" iifname != BRIDGE oifname BRIDGE ct state & (established|related) == 0 ct status & dnat == 0 counter drop
//
// and, for IngressIsolated, without the second match: ports that are isolated on the
// bridge could otherwise send to each other by way of the gateway.
func (net *Network) ingressRule() ownRule {
	from := interfaceIs(metaIIFKind, expr.CmpOpEq, "bridge")
	if net.Ingress == IngressSameBridge {
		from = slices.Concat(from, interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq, net.RoutedBy()))
	}
	return ownRule{
		chain: forwardFilter, comment: net.comment("ingress", net.Ingress.String()),
		exprs: slices.Concat(from, interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, net.RoutedBy()), unanswered(), untranslated(), drop()),
	}
}

// ingressLacks compares a bridge's rules with the policy of the network: a policy
// that was changed takes the place of the one before.
func (n *Namespace) ingressLacks(net *Network) (lacks []lack, err error) {
	for _, family := range net.families() {
		present, err := n.ownRules(family, forwardFilter)
		if err != nil {
			return nil, err
		}
		wanted := net.ingressRule()
		for found, handle := range present {
			if strings.HasPrefix(found, net.comment("ingress")) && (found != wanted.comment || net.Ingress == IngressOpen) {
				lacks = append(lacks, lack{
					fmt.Sprintf("ingress policy %s instead of the rule %q", net.Ingress, found),
					func() error { return n.deleteRule(family, forwardFilter, handle) },
				})
			}
		}
		if net.Ingress != IngressOpen && present[wanted.comment] == 0 {
			f := feature{
				what: fmt.Sprintf("ingress policy %s of %s", net.Ingress, net.RoutedBy()), family: family,
				add: func(c *nftables.Conn, t *nftables.Table) error { addRules(c, t, wanted); return nil },
			}
			lacks = append(lacks, lack{f.what, func() error { return n.addFeature(f) }})
		}
	}
	return lacks, nil
}
