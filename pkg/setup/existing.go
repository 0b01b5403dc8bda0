package setup

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/hostports"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// ErrNoLink is returned if the link that Port.ExistingLink names does not exist.
var ErrNoLink = errors.New("there is no such link on the host")

// plugExisting adds an existing link, which another plugin has created, to the bridge. The link keeps
// its name. It gets the port name of the attachment as an alternative name (ip-link(8), "altname";
// Linux 5.5), so that every look-up by port name finds the link.
//
// The link may be up already, and CheckAttachable treats a link that is up and on a bridge as a
// finished port. Therefore plugExisting adds the link to the bridge only after the steps for
// bandwidth limits and host ports.
func (h *Host) plugExisting(p *Port, br rtnl.Link) (*Plugged, error) {
	l, err := h.existingLink(p)
	if err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		func() error { return h.markExisting(p, l) },
		func() error { return forgetConnections(h.Namespace, p) },
		func() error { return ownrules.JoinFastPath(h.Namespace, p) },
		func() error { return bridges.LimitPort(h.Namespace, p) },
		func() error { return hostports.Publish(h.Namespace, p) },
		func() error { return h.joinExisting(p, l, br) },
		func() error { return h.setPortUp(p) },
	} {
		if err = step(); err != nil {
			_, undoErr := h.Unplug(p.Attachment, p.HostPorts...)
			return nil, errors.Join(h.explainGone(br.Index, explainFull(br.Name, err)), undoErr)
		}
	}
	return &Plugged{BridgeMAC: br.MAC, BridgeMTU: br.MTU, PortMAC: l.MAC, MTU: l.MTU, bridge: br.Index}, nil
}

// markExisting gives an existing link the alternative name and the alias of the port p.
func (h *Host) markExisting(p *Port, l rtnl.Link) error {
	var b netns.Batch
	b.Add(fmt.Sprintf("add alternative name %s to %s", p.Port(), l.Name), altNameRequest(unix.RTM_NEWLINKPROP, l, p.Port()))
	b.Add("mark "+l.Name, rtnl.NewLinkRequest(l.Name, 0)).AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(p.Alias())))
	return h.Send(b)
}

// joinExisting adds an existing link to the bridge and to the VLANs of p, and sets the bridge port
// settings of p.
func (h *Host) joinExisting(p *Port, l, br rtnl.Link) error {
	var b netns.Batch
	if err := bridges.KeepMACBeforeJoin(h.Namespace, &b, br, l.MAC); err != nil {
		return err
	}
	join := b.Add(fmt.Sprintf("add %s to bridge %s", l.Name, br.Name), rtnl.NewLinkRequest(l.Name, 0))
	join.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(br.Index))))
	b.Add("configure port "+l.Name, settingsRequest(p))
	bridges.AddVLANs(&b, p, l, br)
	return h.Send(b)
}

// existingLink returns the link that Port.ExistingLink names. The error is ErrNoLink if the link does
// not exist, and ErrTaken if the link already has a master or an alias.
func (h *Host) existingLink(p *Port) (l rtnl.Link, err error) {
	l, err = rtnl.ByName(h.Namespace, p.ExistingLink)
	switch {
	case rtnl.Absent(err):
		err = ErrNoLink
	case err != nil:
	case l.Master != 0:
		err = fmt.Errorf("the link is a port of another bridge or bond: %w", ErrTaken)
	case l.Alias != "":
		err = fmt.Errorf("the link has the alias %q: %w", l.Alias, ErrTaken)
	case l.Name == p.Network.Bridge:
		err = errors.New("the link is the bridge itself")
	}
	if err != nil {
		return l, fmt.Errorf("add %s to bridge %s: %w", p.ExistingLink, p.Network.Bridge, err)
	}
	return l, nil
}

// removeExisting removes an existing link from its bridge. It also deletes the bandwidth limits,
// the IFB, the alias and the alternative name of the port. Before these requests, it sends the
// requests that the caller has put into b.
func (h *Host) removeExisting(b *netns.Batch, l rtnl.Link, port string) error {
	if err := rtnl.RemoveLimits(h.Namespace, b, l); err != nil {
		return err
	}
	rtnl.Delete(b, plan.IFBOf(port))
	leave := b.Ensure("take "+l.Name+" off its bridge", rtnl.NewLinkRequest(l.Name, 0), unix.ENODEV)
	leave.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(0)))
	leave.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, nil))
	// The alternative name is deleted last: after a crash, the next call needs this name to find
	// the link.
	b.Ensure("delete alternative name "+port+" of "+l.Name, altNameRequest(unix.RTM_DELLINKPROP, l, port), unix.ENODEV)
	return h.Send(*b)
}

// altNameRequest returns the request that adds an alternative name to a link (kind RTM_NEWLINKPROP)
// or deletes it (kind RTM_DELLINKPROP).
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
