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

// ErrNoVLANs is returned if a bridge of somebody else has no VLAN filtering.
var ErrNoVLANs = errors.New("it has no VLAN filtering")

// untagged returns the VLAN of untagged frames, 0 if the plan names none.
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

// MissingVLANs compares what the VLANs of a network need: VLAN filtering of the bridge, and the VLAN link
// with the gateways.
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

// mayFilterVLANs returns ErrNoVLANs for a bridge of somebody else without VLAN filtering. To switch it on
// could separate the ports of that bridge.
func mayFilterVLANs(n *netns.Namespace, l rtnl.Link) error {
	if l.Index == 0 || l.FiltersVLANs || MadeByUs(n, l) {
		return nil
	}
	return fmt.Errorf("use VLANs on bridge %s: %w, and bridgeveth did not create it; switch VLAN filtering on: ip link set %s type bridge vlan_filtering 1", l.Name, ErrNoVLANs, l.Name)
}

// filterVLANs switches on VLAN filtering of our bridge.
func filterVLANs(n *netns.Namespace, bridge string) error {
	err := rtnl.ChangeBridge(n, bridge, nl.NewRtAttr(rtnl.BridgeVLANFilter, nl.Uint8Attr(1)))
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w; this kernel is without CONFIG_BRIDGE_VLAN_FILTERING", err)
	}
	return err
}

// ensureVLANLink creates the VLAN link with the gateways and adds the bridge itself to the VLAN.
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
	case !errors.Is(err, unix.EEXIST): // with EEXIST another program has created the link, so it gets no mark
		return err
	}
	rtnl.SetUp(&up, name)
	return errors.Join(n.Send(up), joinVLANs(n, br, plan.VLANRange{First: net.VLANs.Native, Last: net.VLANs.Native}, vlanOfBridge))
}

// vlanMode is how a link belongs to a VLAN: see `bridge vlan`.
type vlanMode int

const (
	vlanTagged   vlanMode = iota // a port, with tagged frames
	vlanNative                   // a port, with untagged frames
	vlanOfBridge                 // the bridge itself, with tagged frames
)

// joinVLANs adds a port, or a bridge, to a range of VLANs.
func joinVLANs(n *netns.Namespace, l rtnl.Link, r plan.VLANRange, mode vlanMode) error {
	h, err := n.Library()
	if err != nil {
		return err
	}
	last := uint16(r.Last)
	if r.Last == r.First {
		last = 0 // a single VLAN
	}
	of := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: l.Index}}
	native, self := mode == vlanNative, mode == vlanOfBridge
	if err := h.BridgeVlanAddRange(of, uint16(r.First), last, native, native, self, !self); err != nil {
		return fmt.Errorf("add %s to VLANs %d to %d: %w", l.Name, r.First, r.Last, err)
	}
	return nil
}

// TagPort adds a port to the VLANs of its network.
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
		if err := joinVLANs(n, port, r, vlanTagged); err != nil {
			return err
		}
	}
	if id := untagged(v); id != 0 { // last, because the VLAN of untagged frames may be in the trunk too
		return joinVLANs(n, port, plan.VLANRange{First: id, Last: id}, vlanNative)
	}
	return nil
}

// leaveDefaultVLAN removes a port from the default VLAN of its bridge. The kernel adds each new port to
// that VLAN.
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
		return fmt.Errorf("remove %s from VLAN %d: %w", port.Name, br.DefaultVLAN, err)
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

// DeleteVLANLinks deletes our VLAN links on a bridge that continues to exist, and removes the bridge from
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
			errs = append(errs, fmt.Errorf("remove %s from VLAN %d: %w", br.Name, l.VLAN, err))
		}
	}
	return errors.Join(errs...)
}
