package setup

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// VerifyPort compares a port and its network with what AttachPort made of them,
// and changes nothing. The error names everything that is missing or different;
// nil says that nothing is. Routes that the port does not list are not looked at.
func (n *Namespace) VerifyPort(p *Port) error {
	return errors.Join(n.VerifyHost(p), n.VerifyContainer(p))
}

// VerifyHost is VerifyPort on the host: of what RepairPort puts back. A port that an older
// build has attached is held to what that build made.
func (n *Namespace) VerifyHost(p *Port) error {
	lacks, err := n.lacks(p.Network)
	if err != nil {
		return err
	}
	if port, err := n.link(p.name()); err == nil && bytes.Equal(port.mac, p.formerMAC()) {
		lacks = slices.DeleteFunc(lacks, func(l lack) bool { return l.newer })
	}
	return errors.Join(missing(lacks), n.VerifyPlug(p))
}

// VerifyPlug is VerifyHost of the port alone, without its network.
func (n *Namespace) VerifyPlug(p *Port) error {
	return errors.Join(n.verifyPort(p), n.verifyHostPorts(p), n.verifyGuard(p), n.verifyBandwidth(p))
}

// verifyPort looks at the host end.
func (n *Namespace) verifyPort(p *Port) error {
	br, err := n.link(p.Network.Bridge)
	if err != nil && !absent(err) {
		return err
	}
	name := p.name()
	port, err := n.link(name)
	if absent(err) {
		return fmt.Errorf("port %s: missing", name)
	}
	if err != nil {
		return err
	}
	isolated := p.Isolated
	if port.isolated && !isolated {
		if isolated, err = n.isolatedBehind(p.Network); err != nil {
			return err
		}
	}
	wrong := []error{
		n.verifyVLANs(p, br, port),
		differ("port "+name+" on bridge "+p.Network.Bridge, br.index != 0 && port.master == br.index, true),
		differ("port "+name+" up", port.up, true),
		differ("hairpin mode of port "+name, port.hairpin, p.Hairpin),
		differ("isolation of port "+name, port.isolated, isolated),
	}
	if p.Given != "" { // its MTU and its carrier are somebody else's
		return errors.Join(append(wrong, differ("second name of port "+name, port.port, p.Port()))...)
	}
	wrong = append(wrong, differ("port "+name+" forwarding", port.forwarding || p.Down, true))
	if p.MTU != AnyMTU && br.index != 0 {
		wrong = append(wrong, differ("MTU of port "+name, port.mtu, p.mtu(br.mtu)))
	}
	return errors.Join(wrong...)
}

// mtu is the MTU of both ends, on a bridge with the given one.
func (p *Port) mtu(bridge int) int {
	if p.MTU != 0 {
		return p.MTU
	}
	return bridge
}

// VerifyContainer is VerifyPort inside of the container.
func (n *Namespace) VerifyContainer(p *Port) error {
	if p.Given != "" {
		return nil
	}
	l, err := p.Container.link(p.Interface)
	if absent(err) {
		return fmt.Errorf("interface %s in %s: missing", p.Interface, p.Container.Path)
	}
	if err != nil {
		return err
	}
	wrong := []error{differ("interface "+p.Interface+" up", l.up || p.Down, true)}
	if port, err := n.link(p.Port()); err == nil {
		wrong = append(wrong,
			differ("peer of "+p.Interface, l.peer, port.index),
			// Plugins behind ours, such as tuning, make it less, and do not tell.
			differ("MTU of "+p.Interface, l.mtu, min(l.mtu, port.mtu)))
	}
	if want := p.mac(); !bytes.Equal(l.mac, want) {
		wrong = append(wrong, differ("MAC of "+p.Interface, l.mac.String(), want.String()))
	}
	present, err := p.Container.addresses(l)
	wrong = append(wrong, err)
	for _, a := range p.Addresses {
		wrong = append(wrong, differ("address "+a.String()+" on "+p.Interface, slices.Contains(present, a), true))
	}
	values, err := p.Container.sysctls(p.Sysctls)
	wrong = append(wrong, err)
	for key := range values {
		wrong = append(wrong, differ("sysctl net/"+key+" of the container", values[key], p.Sysctls[key]))
	}
	for _, r := range p.Routes {
		has, err := p.Container.hasRoute(l, r)
		wrong = append(wrong, err, differ("route "+r.String(), has || err != nil, true))
	}
	return errors.Join(wrong...)
}

// differ is an error unless is and want are the same.
func differ[T comparable](what string, is, want T) error {
	if is == want {
		return nil
	}
	return fmt.Errorf("%s: is %v instead of %v", what, is, want)
}
