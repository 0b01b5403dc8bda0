package setup

import (
	"errors"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// What follows is for plugins that come behind ours in a chain, and add to a port that is
// there already.

// policyBehind is what an ingress policy is called that a plugin behind ours has set, apart
// from that of the network's own configuration.
const policyBehind = "firewall"

// BridgeOf is the bridge that an attachment's port is on; "" where it has no port.
func (n *Host) BridgeOf(a Attachment) (string, error) {
	port, err := rtnl.ByName(n.Namespace, a.Port())
	if rtnl.Absent(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	br, err := bridges.BridgeOf(n.Namespace, port)
	return br.Name, err
}

// PublishPort adds the host ports of a port that is attached, all or none, and what its
// network needs for them, as AttachPort does. Those that it has already are left. They are
// listed for others besides, see showPorts. UnpublishPort is its inverse, and so is DetachPort but
// for the list.
func (n *Host) PublishPort(p *Port) error {
	lock, err := n.holdNetwork(p.Network)
	if err != nil {
		return err
	}
	if ownrules.VerifyHostPorts(n.Namespace, p) != nil {
		err = ownrules.Publish(n.Namespace, p)
	}
	lock.Unlock()
	if err != nil {
		return err
	}
	if err := ownrules.ShowPorts(n.Namespace, p); err != nil {
		return errors.Join(err, n.UnpublishPort(p.Attachment, p.HostPorts...))
	}
	return nil
}

// UnpublishPort deletes the host ports of an attachment, whether its port is still there
// or not. It is quicker to name those that are known.
func (n *Host) UnpublishPort(a Attachment, known ...HostPort) error {
	gone := func(o ownrules.PortOwner) bool { return o.Port == a.Port() }
	return errors.Join(ownrules.Unpublish(n.Namespace, a, known), ownrules.HidePorts(n.Namespace, gone))
}

// VerifyPublished compares a port and its network with what PublishPort has made, and
// changes nothing.
func (n *Host) VerifyPublished(p *Port) error {
	missing, err := n.missing(p.Network)
	return errors.Join(plan.Error(missing), err, ownrules.VerifyHostPorts(n.Namespace, p), ownrules.VerifyShown(n.Namespace, p))
}

// CollectPublished deletes the host ports of a network's attachments that are not in valid.
func (n *Host) CollectPublished(network string, valid []Attachment) error {
	gone := ownrules.Unlisted(network, valid)
	abandoned, err := ownrules.Published(n.Namespace, func(m ownrules.Mapping) bool { return gone(m.Owner) })
	return errors.Join(err, ownrules.DeleteMappings(n.Namespace, abandoned), ownrules.HidePorts(n.Namespace, gone))
}

// EnsureFiltered lets the packets of a port's network past chains that deny, and applies its
// ingress policy, in addition to what the network had before: see Network.Forward and
// Network.Ingress. It goes with the network. It says what was missing.
func (n *Host) EnsureFiltered(p *Port) (mended []string, err error) {
	missing, err := n.missingFiltered(p)
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	return n.repair(func() ([]plan.Difference, error) { return n.missingFiltered(p) })
}

// VerifyFiltered says what is missing of what EnsureFiltered does, and changes nothing.
func (n *Host) VerifyFiltered(p *Port) error {
	missing, err := n.missingFiltered(p)
	return errors.Join(plan.Error(missing), err)
}

func (n *Host) missingFiltered(p *Port) (missing []plan.Difference, err error) {
	if missing, err = n.missingFilters(p.Network); err != nil {
		return nil, err
	}
	behind := ownrules.IngressPolicy(p.Network)
	behind.Name = policyBehind
	for _, family := range p.Network.Families() {
		present, err := ownrules.Rules(n.Namespace, family)
		if err != nil {
			return nil, err
		}
		missing = append(missing, ownrules.ComparePolicy(n.Namespace, p.Network, family, behind, present[behind.Chain.Name])...)
	}
	port, err := rtnl.ByName(n.Namespace, p.Port())
	if err == nil && p.Network.Ingress == IngressIsolated && !port.Isolated {
		missing = append(missing, plan.Difference{What: "isolation of port " + port.Name, Restore: func() error { return n.isolate(port) }})
	}
	return missing, err
}

// isolatedBehind says whether the ingress policy of EnsureFiltered isolates the ports of a
// network.
func (n *Host) isolatedBehind(net *Network) (bool, error) {
	for _, family := range net.Families() {
		rules, err := ownrules.Rules(n.Namespace, family)
		if err != nil {
			return false, err
		}
		if len(rules[ownrules.ForwardFilter.Name][net.Comment(policyBehind, IngressIsolated.String())]) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// isolate keeps a port of a bridge from others that are isolated.
func (n *Host) isolate(port rtnl.Link) error {
	var b netns.Batch
	req := b.Add("isolate port "+port.Name, rtnl.NewLinkRequest(port.Name, 0))
	req.AddData(rtnl.PortInfo(map[int]bool{rtnl.BrportIsolated: true}))
	return n.Send(b)
}
