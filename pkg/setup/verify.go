package setup

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// VerifyPort compares a port and its network with what AttachPort made of them,
// and changes nothing. The error names everything that is missing or different;
// nil says that nothing is. Routes that the port does not list are not looked at.
func (n *Host) VerifyPort(p *Port) error {
	return errors.Join(n.VerifyHost(p), n.VerifyContainer(p))
}

// VerifyHost is VerifyPort on the host: of what RepairPort puts back. A port that an older
// build has attached is held to what that build made.
func (n *Host) VerifyHost(p *Port) error {
	missing, err := n.missing(p.Network)
	if err != nil {
		return err
	}
	if port, err := rtnl.ByName(n.Namespace, p.LinkName()); err == nil && bytes.Equal(port.MAC, p.FormerMAC()) {
		missing = slices.DeleteFunc(missing, func(l plan.Difference) bool { return l.Newer })
	}
	return errors.Join(plan.Error(missing), n.VerifyPlug(p))
}

// VerifyPlug is VerifyHost of the port alone, without its network.
func (n *Host) VerifyPlug(p *Port) error {
	return errors.Join(n.verifyPort(p), ownrules.VerifyHostPorts(n.Namespace, p), ownrules.VerifyGuard(n.Namespace, p), bridges.VerifyBandwidth(n.Namespace, p))
}

// verifyPort looks at the host end.
func (n *Host) verifyPort(p *Port) error {
	br, err := rtnl.ByName(n.Namespace, p.Network.Bridge)
	if err != nil && !rtnl.Absent(err) {
		return err
	}
	name := p.LinkName()
	port, err := rtnl.ByName(n.Namespace, name)
	if rtnl.Absent(err) {
		return fmt.Errorf("port %s: missing", name)
	}
	if err != nil {
		return err
	}
	isolated := p.Isolated
	if port.Isolated && !isolated {
		if isolated, err = n.isolatedBehind(p.Network); err != nil {
			return err
		}
	}
	wrong := []error{
		bridges.VerifyVLANs(n.Namespace, p, br, port),
		plan.Differ("port "+name+" on bridge "+p.Network.Bridge, br.Index != 0 && port.Master == br.Index, true),
		plan.Differ("port "+name+" up", port.Up, true),
		plan.Differ("hairpin mode of port "+name, port.Hairpin, p.Hairpin),
		plan.Differ("isolation of port "+name, port.Isolated, isolated),
	}
	if p.Given != "" { // its MTU and its carrier are somebody else's
		return errors.Join(append(wrong, plan.Differ("second name of port "+name, port.Port, p.Port()))...)
	}
	wrong = append(wrong, plan.Differ("port "+name+" forwarding", port.Forwarding || p.Down, true))
	if p.MTU != AnyMTU && br.Index != 0 {
		wrong = append(wrong, plan.Differ("MTU of port "+name, port.MTU, p.MTUOn(br.MTU)))
	}
	return errors.Join(wrong...)
}

// VerifyContainer is VerifyPort inside of the container.
func (n *Host) VerifyContainer(p *Port) error {
	if p.Given != "" {
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
	if port, err := rtnl.ByName(n.Namespace, p.Port()); err == nil {
		wrong = append(wrong,
			plan.Differ("peer of "+p.Interface, l.Peer, port.Index),
			// Plugins behind ours, such as tuning, make it less, and do not tell.
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
	for _, r := range p.Routes {
		has, err := rtnl.HasRoute(p.Container, l, r)
		wrong = append(wrong, err, plan.Differ("route "+r.String(), has || err != nil, true))
	}
	return errors.Join(wrong...)
}
