package bridges

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// ErrNoVLANs says that a bridge of somebody else's does not keep VLANs apart.
var ErrNoVLANs = errors.New("it does not filter by VLAN")

// untagged is the VLAN of frames without a tag; 0 is none, or the bridge's default one.
func untagged(v plan.VLANs) int { return cmp.Or(v.Native, v.Untagged) }

// IsBridgeOrVLAN reports whether name is the name of a bridge or of a VLAN link on the bridge. Both
// may be deleted already. Another bridge with a name such as "br0.5" is not a VLAN link.
func IsBridgeOrVLAN(n *netns.Namespace, name, bridge string) (bool, error) {
	if name == bridge || !strings.HasPrefix(name, bridge+".") {
		return name == bridge, nil
	}
	l, err := rtnl.ByName(n, name)
	if rtnl.Absent(err) {
		return true, nil
	}
	return err == nil && l.Kind != "bridge", err
}

// MissingVLANs looks for what a bridge needs for VLANs, with the link by which the network is
// routed.
func MissingVLANs(n *netns.Namespace, net *plan.Network, br, routed rtnl.Link) (missing []plan.Difference, err error) {
	if !net.VLANs.Any() {
		return nil, nil
	}
	if err := mayFilterVLANs(n, br); err != nil {
		return nil, err
	}
	if !br.FiltersVLANs {
		missing = append(missing, plan.Difference{What: "VLAN filtering of bridge " + net.Bridge, Restore: func() error { return filterVLANs(n, net.Bridge) }})
	}
	if net.RoutedBy() == net.Bridge {
		return missing, nil
	}
	switch {
	case routed.Index == 0:
	case routed.Kind != "vlan" || routed.VLAN != net.VLANs.Native || routed.Peer != br.Index:
		return nil, fmt.Errorf("route VLAN %d of bridge %s by %s: the name is taken: %w", net.VLANs.Native, net.Bridge, routed.Name, rtnl.ErrTaken)
	case routed.Up:
		return missing, nil
	}
	return append(missing, plan.Difference{What: "link " + net.RoutedBy(), Restore: func() error { return ensureVLANLink(n, net) }}), nil
}

// mayFilterVLANs refuses to change a bridge of somebody else's: its ports could lose each
// other.
func mayFilterVLANs(n *netns.Namespace, l rtnl.Link) error {
	if l.Index == 0 || l.FiltersVLANs || MadeByUs(n, l) {
		return nil
	}
	return fmt.Errorf("use VLANs on bridge %s: %w, and was there before; have it do so by: ip link set %s type bridge vlan_filtering 1", l.Name, ErrNoVLANs, l.Name)
}

// filterVLANs has a bridge of ours keep VLANs apart.
func filterVLANs(n *netns.Namespace, bridge string) error {
	err := rtnl.ChangeBridge(n, bridge, nl.NewRtAttr(rtnl.BridgeVLANFilter, nl.Uint8Attr(1)))
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w; this kernel is without CONFIG_BRIDGE_VLAN_FILTERING", err)
	}
	return err
}

// ensureVLANLink makes the link by which the host routes for a VLAN of a bridge, and lets
// the bridge itself into the VLAN.
func ensureVLANLink(n *netns.Namespace, net *plan.Network) error {
	br, err := rtnl.ByName(n, net.Bridge)
	if err != nil {
		return err
	}
	name := net.RoutedBy()
	var create, up netns.Batch
	make := create.Add("create VLAN link "+name, rtnl.NewLinkRequest(name, unix.NLM_F_CREATE|unix.NLM_F_EXCL))
	make.AddData(nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(br.Index))))
	make.AddData(rtnl.LinkInfo("vlan", nl.NewRtAttr(rtnl.VLANID, nl.Uint16Attr(uint16(net.VLANs.Native)))))
	switch err := n.Send(create); {
	case err == nil:
		rtnl.MarkOwn(&up, name)
	case !errors.Is(err, unix.EEXIST): // with EEXIST it is not ours
		return err
	}
	rtnl.SetUp(&up, name)
	return errors.Join(n.Send(up), changeVLAN(n, br, plan.VLANRange{First: net.VLANs.Native, Last: net.VLANs.Native}, vlanOfBridge))
}

// How a link is in a VLAN, as `bridge vlan` has it.
type vlanMode int

const (
	vlanTagged   vlanMode = iota // a port, with tags
	vlanNative                   // a port, without
	vlanOfBridge                 // the bridge itself, with tags
)

// changeVLAN puts a port, or a bridge, into VLANs.
func changeVLAN(n *netns.Namespace, l rtnl.Link, r plan.VLANRange, mode vlanMode) error {
	h, err := n.Library()
	if err != nil {
		return err
	}
	last := uint16(r.Last)
	if r.Last == r.First {
		last = 0 // no range
	}
	of := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: l.Index}}
	native, self := mode == vlanNative, mode == vlanOfBridge
	if err := h.BridgeVlanAddRange(of, uint16(r.First), last, native, native, self, !self); err != nil {
		return fmt.Errorf("put %s into VLANs %d to %d: %w", l.Name, r.First, r.Last, err)
	}
	return nil
}

// TagPort puts a port into the VLANs of its network.
func TagPort(n *netns.Namespace, p *plan.Port) error {
	v := p.Network.VLANs
	if !v.Any() {
		return nil
	}
	port, err := rtnl.ByName(n, p.LinkName())
	if err != nil {
		return err
	}
	if !v.KeepDefault {
		if err := leaveDefaultVLAN(n, port); err != nil {
			return err
		}
	}
	for _, r := range v.Trunk {
		if err := changeVLAN(n, port, r, vlanTagged); err != nil {
			return err
		}
	}
	if id := untagged(v); id != 0 { // last: what is native is so although it is in the trunk too
		return changeVLAN(n, port, plan.VLANRange{First: id, Last: id}, vlanNative)
	}
	return nil
}

// leaveDefaultVLAN takes a port out of the default VLAN of its bridge, which it was put into when it
// joined.
func leaveDefaultVLAN(n *netns.Namespace, port rtnl.Link) error {
	br, err := BridgeOf(n, port)
	if br.DefaultVLAN == 0 || err != nil {
		return err
	}
	h, err := n.Library()
	if err != nil {
		return err
	}
	of := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: port.Index}}
	if err := h.BridgeVlanDel(of, uint16(br.DefaultVLAN), false, false, false, true); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("take %s out of VLAN %d: %w", port.Name, br.DefaultVLAN, err)
	}
	return nil
}

// VerifyVLANs compares the VLANs of a port with those of its network.
func VerifyVLANs(n *netns.Namespace, p *plan.Port, br, port rtnl.Link) error {
	v := p.Network.VLANs
	if !v.Any() {
		return nil
	}
	h, err := n.Library()
	if err != nil {
		return err
	}
	all, err := h.BridgeVlanList()
	if err != nil {
		return fmt.Errorf("list VLANs of ports: %w", err)
	}
	present := map[int]*nl.BridgeVlanInfo{}
	for _, info := range all[int32(port.Index)] {
		present[int(info.Vid)] = info
	}
	var wrong []error
	untagged := untagged(v)
	if untagged != 0 {
		info := present[untagged]
		native := info != nil && info.PortVID() && info.EngressUntag()
		wrong = append(wrong, plan.Differ(fmt.Sprintf("port %s natively in VLAN %d", port.Name, untagged), native, true))
	}
	wanted := func(id int) bool {
		return slices.ContainsFunc(v.Trunk, func(r plan.VLANRange) bool { return r.First <= id && id <= r.Last })
	}
	for id := 1; id <= plan.MaxVLAN; id++ {
		if id == untagged || id == br.DefaultVLAN && v.KeepDefault {
			continue
		}
		if is := present[id] != nil; is != wanted(id) {
			wrong = append(wrong, plan.Differ(fmt.Sprintf("port %s in VLAN %d", port.Name, id), is, wanted(id)))
		}
	}
	return errors.Join(wrong...)
}

// DeleteVLANLinks deletes our VLAN links on a bridge that stays, and takes the bridge out of
// their VLANs.
func DeleteVLANLinks(n *netns.Namespace, br rtnl.Link) error {
	all, err := allLinks(n)
	ours := slices.DeleteFunc(all, func(l rtnl.Link) bool { return l.Kind != "vlan" || l.Peer != br.Index || l.Alias != plan.Owner })
	if len(ours) == 0 || err != nil {
		return err
	}
	h, err := n.Library()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range ours {
		errs = append(errs, rtnl.DeleteLink(n, l))
		of := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: br.Index}}
		if err := h.BridgeVlanDel(of, uint16(l.VLAN), false, false, true, false); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("take %s out of VLAN %d: %w", br.Name, l.VLAN, err))
		}
	}
	return errors.Join(errs...)
}
