package setup

import (
	"errors"
)

// What follows is for plugins that come behind ours in a chain, and add to a port that is
// there already.

// policyBehind is what an ingress policy is called that a plugin behind ours has set, apart
// from that of the network's own configuration.
const policyBehind = "firewall"

// BridgeOf is the bridge that an attachment's port is on; "" where it has no port.
func (n *Namespace) BridgeOf(a Attachment) (string, error) {
	port, err := n.link(a.Port())
	if absent(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	br, err := n.bridgeOf(port)
	return br.name, err
}

// PublishPort adds the host ports of a port that is attached, all or none, and what its
// network needs for them, as AttachPort does. Those that it has already are left. They are
// listed for others besides, see showPorts. UnpublishPort is its inverse, and so is DetachPort but
// for the list.
func (n *Namespace) PublishPort(p *Port) error {
	lock, err := n.holdNetwork(p.Network)
	if err != nil {
		return err
	}
	if n.verifyHostPorts(p) != nil {
		err = n.publish(p)
	}
	lock.Unlock()
	if err != nil {
		return err
	}
	if err := n.showPorts(p); err != nil {
		return errors.Join(err, n.UnpublishPort(p.Attachment, p.HostPorts...))
	}
	return nil
}

// UnpublishPort deletes the host ports of an attachment, whether its port is still there
// or not. It is quicker to name those that are known.
func (n *Namespace) UnpublishPort(a Attachment, known ...HostPort) error {
	gone := func(o portOwner) bool { return o.port == a.Port() }
	return errors.Join(n.unpublish(a, known), n.hidePorts(gone))
}

// VerifyPublished compares a port and its network with what PublishPort has made, and
// changes nothing.
func (n *Namespace) VerifyPublished(p *Port) error {
	lacks, err := n.lacks(p.Network)
	return errors.Join(missing(lacks), err, n.verifyHostPorts(p), n.verifyShown(p))
}

// CollectPublished deletes the host ports of a network's attachments that are not in valid.
func (n *Namespace) CollectPublished(network string, valid []Attachment) error {
	gone := unlisted(network, valid)
	abandoned, err := n.published(func(m mapping) bool { return gone(m.owner) })
	return errors.Join(err, n.deleteMappings(abandoned), n.hidePorts(gone))
}

// EnsureFiltered lets the packets of a port's network past chains that deny, and applies its
// ingress policy, in addition to what the network had before: see Network.Forward and
// Network.Ingress. It goes with the network. It says what was missing.
func (n *Namespace) EnsureFiltered(p *Port) (mended []string, err error) {
	lacks, err := n.filteredLacks(p)
	if err != nil || len(lacks) == 0 {
		return nil, err
	}
	return n.repair(func() ([]lack, error) { return n.filteredLacks(p) })
}

// VerifyFiltered says what is missing of what EnsureFiltered does, and changes nothing.
func (n *Namespace) VerifyFiltered(p *Port) error {
	lacks, err := n.filteredLacks(p)
	return errors.Join(missing(lacks), err)
}

func (n *Namespace) filteredLacks(p *Port) (lacks []lack, err error) {
	if lacks, err = n.filterLacks(p.Network); err != nil {
		return nil, err
	}
	behind := p.Network.ingressPolicy()
	behind.name = policyBehind
	for _, family := range p.Network.families() {
		present, err := n.ownRules(family)
		if err != nil {
			return nil, err
		}
		lacks = append(lacks, n.compare(p.Network, family, behind, present[behind.chain.name])...)
	}
	port, err := n.link(p.Port())
	if err == nil && p.Network.Ingress == IngressIsolated && !port.isolated {
		lacks = append(lacks, lack{what: "isolation of port " + port.name, mend: func() error { return n.isolate(port) }})
	}
	return lacks, err
}

// isolatedBehind says whether the ingress policy of EnsureFiltered isolates the ports of a
// network.
func (n *Namespace) isolatedBehind(net *Network) (bool, error) {
	for _, family := range net.families() {
		rules, err := n.ownRules(family)
		if err != nil {
			return false, err
		}
		if len(rules[forwardFilter.name][net.comment(policyBehind, IngressIsolated.String())]) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// isolate keeps a port of a bridge from others that are isolated.
func (n *Namespace) isolate(port link) error {
	var b batch
	req := b.add("isolate port "+port.name, newLinkRequest(port.name, 0))
	req.AddData(portInfo(map[int]bool{brportIsolated: true}))
	return n.send(b)
}
