package setup

import (
	"errors"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// The functions in this file are for the plugin firewall. This plugin adds an ingress policy for a
// port that an earlier plugin of the same CNI configuration has attached.

// policyChained is part of the comments of rules for an ingress policy of the plugin firewall. It
// distinguishes them from the rules for the ingress policy of the plugin bridgeveth.
const policyChained = "firewall"

// EnsureFiltered adds the missing rules for p.Network.Forward and p.Network.Ingress. It keeps the
// rules of the plugin that has attached the port. ReleaseNetwork deletes the rules of both plugins.
// EnsureFiltered returns the names of the objects and settings that it restored.
func (h *Host) EnsureFiltered(p *Port) (restored []string, err error) {
	missing, err := h.missingFiltered(p)
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	return h.repair(func() ([]plan.Difference, error) { return h.missingFiltered(p) })
}

// VerifyFiltered returns an error that names everything that EnsureFiltered would add. It changes
// nothing.
func (h *Host) VerifyFiltered(p *Port) error {
	missing, err := h.missingFiltered(p)
	return errors.Join(plan.Error(missing), err)
}

func (h *Host) missingFiltered(p *Port) (missing []plan.Difference, err error) {
	if missing, err = h.missingFilters(p.Network); err != nil {
		return nil, err
	}
	policy := ownrules.IngressPolicy(p.Network)
	policy.Name = policyChained
	for _, family := range p.Network.Families() {
		present, err := ownrules.Rules(h.Namespace, family)
		if err != nil {
			return nil, err
		}
		missing = append(missing, ownrules.ComparePolicy(h.Namespace, p.Network, family, policy, present[policy.Chain.Name])...)
	}
	port, err := rtnl.ByName(h.Namespace, p.Port())
	if err == nil && p.Network.Ingress == IngressIsolated && !port.Isolated {
		missing = append(missing, plan.Difference{What: "isolation of port " + port.Name, Restore: func() error { return h.isolate(port) }})
	}
	return missing, err
}

// isolatedByFirewall reports whether the plugin firewall isolates the ports of a network.
func (h *Host) isolatedByFirewall(net *Network) (bool, error) {
	for _, family := range net.Families() {
		rules, err := ownrules.Rules(h.Namespace, family)
		if err != nil {
			return false, err
		}
		if len(rules[ownrules.ForwardFilter.Name][net.Comment(policyChained, IngressIsolated.String())]) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// isolate stops a bridge port from exchanging frames with other isolated ports.
func (h *Host) isolate(port rtnl.Link) error {
	var b netns.Batch
	req := b.Add("isolate port "+port.Name, rtnl.NewLinkRequest(port.Name, 0))
	req.AddData(rtnl.PortInfo(map[int]bool{rtnl.BrportIsolated: true}))
	return h.Send(b)
}
