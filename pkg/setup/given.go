package setup

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrNoLink says that a link which another plugin is to have made is not there.
var ErrNoLink = errors.New("there is no such link on the host")

// plugGiven plugs in a link that another plugin has made. It keeps its name and has that
// of our ports besides (ip-link(8), "altname"; Linux 5.5), by which it is found again, as
// our own are.
func (n *Namespace) plugGiven(p *Port, br link) (*Plugged, error) {
	l, err := n.given(p)
	if err != nil {
		return nil, err
	}
	var b batch
	b.add(fmt.Sprintf("name %s also %s", l.name, p.Port()), altNameRequest(unix.RTM_NEWLINKPROP, l, p.Port()))
	join := b.add(fmt.Sprintf("plug %s into bridge %s", l.name, br.name), newLinkRequest(l.name, 0))
	join.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(br.index))))
	join.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(p.alias())))
	b.add("configure port "+l.name, p.settingsRequest())
	done := &Plugged{BridgeMTU: br.mtu, PortMAC: l.mac, MTU: l.mtu, bridge: br.index}
	if err = n.send(b); err == nil {
		done.BridgeMAC, err = n.keepMACWith(br, l.mac)
	}
	if err != nil {
		_, undoErr := n.removePort(p.Port())
		return nil, errors.Join(n.explainGone(br.index, explainFull(br.name, err)), undoErr)
	}
	return done, nil
}

// given looks up the link that another plugin has made for a port: ErrNoLink, or ErrTaken
// where it is somebody else's already.
func (n *Namespace) given(p *Port) (l link, err error) {
	l, err = n.link(p.Given)
	switch {
	case absent(err):
		err = ErrNoLink
	case err != nil:
	case l.master != 0:
		err = fmt.Errorf("it is plugged in already: %w", ErrTaken)
	case l.alias != "":
		err = fmt.Errorf("it has the alias %q: %w", l.alias, ErrTaken)
	case l.name == p.Network.Bridge:
		err = errors.New("that is the bridge itself")
	}
	if err != nil {
		return l, fmt.Errorf("plug %s into bridge %s: %w", p.Given, p.Network.Bridge, err)
	}
	return l, nil
}

// removePort deletes a port of ours with its IFB, or takes one that was given off its bridge,
// and says which bridge that was, "" if it had none. One that is gone is no error.
func (n *Namespace) removePort(name string) (bridge string, err error) {
	l, err := n.link(name)
	if err != nil && !absent(err) {
		return "", err
	}
	br, err := n.bridgeOf(l)
	if err != nil {
		return "", err
	}
	var b batch
	b.keepMACWithout(br, l)
	if l.index == 0 || l.name == name {
		b.delete(ifbOf(name)) // most have none, which trying tells in microseconds
		if err := n.send(b); err != nil || l.index == 0 {
			return br.name, err
		}
		return br.name, n.removeLink(l)
	}
	return br.name, n.giveBack(&b, l, name)
}

// giveBack takes a link that was given off its bridge, with all that it had as a port, as the last
// of the batch.
func (n *Namespace) giveBack(b *batch, l link, port string) error {
	if err := n.unlimit(b, l); err != nil {
		return err
	}
	b.delete(ifbOf(port))
	leave := b.ensure("take "+l.name+" off its bridge", newLinkRequest(l.name, 0), unix.ENODEV)
	leave.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(0)))
	leave.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, nil))
	// Last, since by that name it is found.
	b.ensure("take the name "+port+" from "+l.name, altNameRequest(unix.RTM_DELLINKPROP, l, port), unix.ENODEV)
	return n.send(*b)
}

// altNameRequest adds an alternative name to a link, or takes it away.
func altNameRequest(kind int, l link, name string) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(l.index)
	req.AddData(msg)
	names := nl.NewRtAttr(unix.IFLA_PROP_LIST|unix.NLA_F_NESTED, nil)
	names.AddRtAttr(unix.IFLA_ALT_IFNAME, nl.ZeroTerminated(name))
	req.AddData(names)
	return req
}
