package setup

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// ErrNoLink says that a link which another plugin is to have made is not there.
var ErrNoLink = errors.New("there is no such link on the host")

// plugGiven plugs in a link that another plugin has made. It keeps its name and has that
// of our ports besides (ip-link(8), "altname"; Linux 5.5), by which it is found again, as
// our own are.
func (n *Host) plugGiven(p *Port, br rtnl.Link) (*Plugged, error) {
	l, err := n.given(p)
	if err != nil {
		return nil, err
	}
	var b netns.Batch
	b.Add(fmt.Sprintf("name %s also %s", l.Name, p.Port()), altNameRequest(unix.RTM_NEWLINKPROP, l, p.Port()))
	join := b.Add(fmt.Sprintf("plug %s into bridge %s", l.Name, br.Name), rtnl.NewLinkRequest(l.Name, 0))
	join.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(br.Index))))
	join.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(p.Alias())))
	b.Add("configure port "+l.Name, settingsRequest(p))
	done := &Plugged{BridgeMTU: br.MTU, PortMAC: l.MAC, MTU: l.MTU, bridge: br.Index}
	if err = n.Send(b); err == nil {
		done.BridgeMAC, err = bridges.KeepMACWith(n.Namespace, br, l.MAC)
	}
	if err != nil {
		_, undoErr := n.removePort(p.Port())
		return nil, errors.Join(n.explainGone(br.Index, explainFull(br.Name, err)), undoErr)
	}
	return done, nil
}

// given looks up the link that another plugin has made for a port: ErrNoLink, or ErrTaken
// where it is somebody else's already.
func (n *Host) given(p *Port) (l rtnl.Link, err error) {
	l, err = rtnl.ByName(n.Namespace, p.Given)
	switch {
	case rtnl.Absent(err):
		err = ErrNoLink
	case err != nil:
	case l.Master != 0:
		err = fmt.Errorf("it is plugged in already: %w", ErrTaken)
	case l.Alias != "":
		err = fmt.Errorf("it has the alias %q: %w", l.Alias, ErrTaken)
	case l.Name == p.Network.Bridge:
		err = errors.New("that is the bridge itself")
	}
	if err != nil {
		return l, fmt.Errorf("plug %s into bridge %s: %w", p.Given, p.Network.Bridge, err)
	}
	return l, nil
}

// removePort deletes a port of ours with its IFB, or takes one that was given off its bridge,
// and says which bridge that was, "" if it had none. One that is gone is no error.
func (n *Host) removePort(name string) (bridge string, err error) {
	l, err := rtnl.ByName(n.Namespace, name)
	if err != nil && !rtnl.Absent(err) {
		return "", err
	}
	br, err := bridges.BridgeOf(n.Namespace, l)
	if err != nil {
		return "", err
	}
	var b netns.Batch
	bridges.KeepMACWithout(&b, br, l)
	if l.Index == 0 || l.Name == name {
		rtnl.Delete(&b, plan.IFBOf(name)) // most have none, which trying tells in microseconds
		if err := n.Send(b); err != nil || l.Index == 0 {
			return br.Name, err
		}
		return br.Name, rtnl.RemoveLink(n.Namespace, l)
	}
	return br.Name, n.giveBack(&b, l, name)
}

// giveBack takes a link that was given off its bridge, with all that it had as a port, as the last
// of the batch.
func (n *Host) giveBack(b *netns.Batch, l rtnl.Link, port string) error {
	if err := rtnl.Unlimit(n.Namespace, b, l); err != nil {
		return err
	}
	rtnl.Delete(b, plan.IFBOf(port))
	leave := b.Ensure("take "+l.Name+" off its bridge", rtnl.NewLinkRequest(l.Name, 0), unix.ENODEV)
	leave.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(0)))
	leave.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, nil))
	// Last, since by that name it is found.
	b.Ensure("take the name "+port+" from "+l.Name, altNameRequest(unix.RTM_DELLINKPROP, l, port), unix.ENODEV)
	return n.Send(*b)
}

// altNameRequest adds an alternative name to a link, or takes it away.
func altNameRequest(kind int, l rtnl.Link, name string) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(l.Index)
	req.AddData(msg)
	names := nl.NewRtAttr(unix.IFLA_PROP_LIST|unix.NLA_F_NESTED, nil)
	names.AddRtAttr(unix.IFLA_ALT_IFNAME, nl.ZeroTerminated(name))
	req.AddData(names)
	return req
}
