package setup

import (
	"fmt"
	"slices"
	"strings"

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

// String is the name that ParseIngress reads.
func (i Ingress) String() string { return ingressNames[i] }

// ingressPolicy is what keeps connections out of a bridge, in the words of nft(8),
//
//	iifkind "bridge" iifname != BRIDGE oifname BRIDGE ct state & (established|related) == 0 ct status & dnat == 0 counter drop
//
// and, for IngressIsolated, without the second match: ports that are isolated on the
// bridge could otherwise send to each other by way of the gateway.
func (net *Network) ingressPolicy() policy {
	p := policy{chain: forwardFilter, name: "ingress"}
	if net.Ingress == IngressOpen {
		return p
	}
	from := interfaceIs(metaIIFKind, expr.CmpOpEq, "bridge")
	if net.Ingress == IngressSameBridge {
		from = slices.Concat(from, interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq, net.RoutedBy()))
	}
	p.add(net.Ingress.String(), slices.Concat(from, interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, net.RoutedBy()), unanswered(), untranslated(), drop()))
	return p
}

// inboundPolicy keeps out new connections from anywhere but the host and the bridge
// itself, but for those to published ports:
//
//	iifname != BRIDGE oifname BRIDGE ct state & (established|related) == 0 ct status & dnat == 0 counter drop
func (net *Network) inboundPolicy() policy {
	p := policy{chain: forwardFilter, name: "inbound"}
	if net.AnswersOnly {
		p.add("established", slices.Concat(interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq, net.RoutedBy()),
			interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, net.RoutedBy()), unanswered(), untranslated(), drop()))
	}
	return p
}

// markPolicy sets bits of the mark of the bridge's packets before other chains see them:
//
//	iifname BRIDGE meta mark set meta mark | MARK
//	oifname BRIDGE meta mark set meta mark | MARK
//
// so that an administrator can accept them in a chain that we cannot write to.
func (net *Network) markPolicy() policy {
	p := policy{chain: marking, name: "mark"}
	if net.Mark != 0 {
		for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
			p.add(fmt.Sprintf("%#x %s", net.Mark, way(key)), slices.Concat(interfaceIs(key, expr.CmpOpEq, net.RoutedBy()), orMark(net.Mark)))
		}
	}
	return p
}
