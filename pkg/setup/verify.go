package setup

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/elements"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/hostports"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// VerifyPort compares a port and its network with the plan. It changes nothing. The error names
// everything that is missing or different. VerifyPort ignores routes that are not in the plan.
func (h *Host) VerifyPort(p *Port) error {
	return errors.Join(h.VerifyHost(p), h.VerifyContainer(p))
}

// VerifyHost compares the network and the host's part of a port with the plan. RepairPort can restore
// everything that VerifyHost compares. If an older version of bridgeveth has attached the port,
// VerifyHost does not require the rules that only newer versions add.
func (h *Host) VerifyHost(p *Port) error {
	port, err := rtnl.ByName(h.Namespace, p.LinkName())
	former := err == nil && bytes.Equal(port.MAC, p.FormerMAC())
	if former {
		if p, err = h.planOfOlderBuild(p); err != nil {
			return err
		}
	}
	missing, err := h.missing(p.Network)
	if err != nil {
		return err
	}
	if former {
		missing = slices.DeleteFunc(missing, func(d plan.Difference) bool { return d.Newer })
	}
	return errors.Join(plan.Error(missing), h.VerifyHostEnd(p))
}

// planOfOlderBuild returns the plan for a port that an older version of bridgeveth has attached. In
// this plan, the port has no BPDU guard. If Port.GuardDefault is true, and the host has no guard for
// the port, the plan has no guard either.
func (h *Host) planOfOlderBuild(p *Port) (*Port, error) {
	former := *p
	former.BPDUGuard = false
	if p.GuardDefault {
		found, err := ownrules.GuardedPorts(h.Namespace, func(o elements.Owner) bool { return o.Port == p.Port() })
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			net := *p.Network
			net.Guarded = false
			former.Guard, former.Network = GuardNone, &net
		}
	}
	return &former, nil
}

// VerifyHostEnd compares the host's part of a port with the plan. It does not check the network.
func (h *Host) VerifyHostEnd(p *Port) error {
	var wrong []error
	for _, part := range h.portParts() {
		wrong = append(wrong, part.verify(p))
	}
	return errors.Join(wrong...)
}

// portPart is a part of a port on the host. VerifyHostEnd compares all parts with the plan.
// RepairPort restores the parts that differ.
type portPart struct {
	name    string
	verify  func(*Port) error
	restore func(*Port) error
}

func (h *Host) portParts() []portPart {
	in := func(f func(*Namespace, *Port) error) func(*Port) error {
		return func(p *Port) error { return f(h.Namespace, p) }
	}
	return []portPart{
		{"settings", h.verifySettings, h.restoreSettings},
		{"host ports", in(hostports.Verify), in(hostports.Publish)},
		{"guard", in(ownrules.VerifyGuard), h.restoreGuard},
		{"fast path", in(ownrules.VerifyFastPath), in(ownrules.JoinFastPath)},
		{"bandwidth", in(bridges.VerifyBandwidth), in(bridges.LimitPort)},
	}
}

// verifySettings compares the link of a port and its bridge port settings with the plan.
func (h *Host) verifySettings(p *Port) error {
	br, err := rtnl.ByName(h.Namespace, p.Network.Bridge)
	if err != nil && !rtnl.Absent(err) {
		return err
	}
	name := p.LinkName()
	port, err := rtnl.ByName(h.Namespace, name)
	if rtnl.Absent(err) {
		return fmt.Errorf("port %s: missing", name)
	}
	if err != nil {
		return err
	}
	isolated := p.Isolated
	if port.Isolated && !isolated {
		if isolated, err = h.isolatedByFirewall(p.Network); err != nil {
			return err
		}
	}
	wrong := []error{
		bridges.VerifyVLANs(h.Namespace, p, br, port),
		plan.Differ("port "+name+" on bridge "+p.Network.Bridge, br.Index != 0 && port.Master == br.Index, true),
		plan.Differ("port "+name+" up", port.Up, true),
		plan.Differ("hairpin mode of port "+name, port.Hairpin, p.Hairpin),
		plan.Differ("isolation of port "+name, port.Isolated, isolated),
		plan.Differ("BPDU guard of port "+name, port.BPDUGuard, port.BPDUGuard || p.BPDUGuard),
	}
	if p.ExistingLink != "" { // the plugin that created the link chooses its MTU and its carrier
		return errors.Join(append(wrong, plan.Differ("alternative name of port "+name, port.Port, p.Port()))...)
	}
	if port.Disabled && port.BPDUGuard && port.Running {
		wrong = append(wrong, fmt.Errorf("port %s: disabled by its BPDU guard, because the container has sent a BPDU", name))
	}
	wrong = append(wrong, plan.Differ("port "+name+" forwarding", port.Forwarding || p.Down, true))
	if p.MTU != AnyMTU && br.Index != 0 {
		wrong = append(wrong, plan.Differ("MTU of port "+name, port.MTU, p.MTUOn(br.MTU)))
	}
	return errors.Join(wrong...)
}

// VerifyContainer compares the container's part of a port with the plan: interface, addresses, routes
// and sysctls.
func (h *Host) VerifyContainer(p *Port) error {
	if p.ExistingLink != "" {
		return nil
	}
	l, err := rtnl.ByName(p.Container, p.Interface)
	if rtnl.Absent(err) {
		return fmt.Errorf("interface %s in %s: missing", p.Interface, p.Container.Path)
	}
	if err != nil {
		return err
	}
	wrong := []error{plan.Differ("interface "+p.Interface+" up", l.Up || p.Down, true)}
	if port, err := rtnl.ByName(h.Namespace, p.Port()); err == nil {
		wrong = append(wrong,
			plan.Differ("peer of "+p.Interface, l.Peer, port.Index),
			// A smaller MTU is accepted, because chained plugins such as tuning lower the MTU
			// and do not report it in their result.
			plan.Differ("MTU of "+p.Interface, l.MTU, min(l.MTU, port.MTU)))
	}
	if want := p.EndMAC(); !bytes.Equal(l.MAC, want) {
		wrong = append(wrong, plan.Differ("MAC of "+p.Interface, l.MAC.String(), want.String()))
	}
	present, err := rtnl.ListAddresses(p.Container, l)
	wrong = append(wrong, err)
	for _, a := range p.Addresses {
		wrong = append(wrong, plan.Differ("address "+a.String()+" on "+p.Interface, slices.Contains(present, a), true))
	}
	values, err := p.Container.Sysctls(p.Sysctls)
	wrong = append(wrong, err)
	for key := range values {
		wrong = append(wrong, plan.Differ("sysctl net/"+key+" of the container", values[key], p.Sysctls[key]))
	}
	absent, err := rtnl.AbsentRoutes(p.Container, l, p.Routes)
	wrong = append(wrong, err)
	for _, r := range absent {
		differs := plan.Differ("route "+r.String(), false, true)
		if !r.Gateway.IsValid() && r.Destination.IsSingleIP() {
			differs = DifferenceError{Kind: RouteOnLink, Address: r.Destination.Addr(), Err: differs}
		}
		wrong = append(wrong, differs)
	}
	return errors.Join(wrong...)
}
