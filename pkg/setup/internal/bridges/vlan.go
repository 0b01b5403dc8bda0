package bridges

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// ErrNoVLANs is returned if the network has VLANs, but a bridge of another program has VLAN
// filtering off.
var ErrNoVLANs = errors.New("it has no VLAN filtering")

// untagged returns the VLAN of untagged frames, or 0 if the plan has none.
func untagged(v plan.VLANs) int { return cmp.Or(v.Native, v.Untagged) }

// IsBridgeOrVLAN reports whether name belongs to the bridge or to a VLAN link on the bridge, such
// as "br0.5" on br0. It also returns true if the VLAN link was deleted already. It returns false if
// "br0.5" is itself a bridge.
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

// MissingVLANs returns a difference for each object that the VLANs of a network need and the host
// lacks: VLAN filtering of bridge br, and the VLAN link with the gateways. The parameter routed is
// the existing link that has the name of the VLAN link. If there is no such link, routed is the
// zero Link.
func MissingVLANs(n *netns.Namespace, net *plan.Network, br, routed rtnl.Link) (missing []plan.Difference, err error) {
	if !net.VLANs.Any() {
		return nil, nil
	}
	if err := mayFilterVLANs(br); err != nil {
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

// mayFilterVLANs returns ErrNoVLANs for a bridge that another program created without VLAN
// filtering. We must not switch VLAN filtering on there, because this could separate ports of the
// bridge.
func mayFilterVLANs(l rtnl.Link) error {
	if l.Index == 0 || l.FiltersVLANs || l.Own {
		return nil
	}
	return fmt.Errorf("add VLANs to bridge %s: %w, and bridgeveth did not create it; switch VLAN filtering on: ip link set %s type bridge vlan_filtering 1", l.Name, ErrNoVLANs, l.Name)
}

// filterVLANs switches on VLAN filtering of a bridge that we created.
func filterVLANs(n *netns.Namespace, bridge string) error {
	err := rtnl.ChangeBridge(n, bridge, nl.NewRtAttr(rtnl.BridgeVLANFilter, nl.Uint8Attr(1)))
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w; this kernel is without CONFIG_BRIDGE_VLAN_FILTERING", err)
	}
	return err
}

// ensureVLANLink creates the VLAN link with the gateways and adds the bridge itself to the VLAN. It
// sets the link up last, because MissingVLANs treats a link that is up as complete.
func ensureVLANLink(n *netns.Namespace, net *plan.Network) error {
	br, err := rtnl.ByName(n, net.Bridge)
	if err != nil {
		return err
	}
	name, id := net.RoutedBy(), net.VLANs.Native
	var create, complete, up netns.Batch
	make := create.Add("create VLAN link "+name, rtnl.NewOwnRequest(name))
	make.AddData(nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(br.Index))))
	make.AddData(rtnl.LinkInfo("vlan", nl.NewRtAttr(rtnl.VLANID, nl.Uint16Attr(uint16(id)))))
	created := n.Send(create)
	if created != nil && !errors.Is(created, unix.EEXIST) {
		return created
	}
	l, err := rtnl.ByName(n, name)
	if err != nil {
		return errors.Join(created, err) // on EEXIST without a link of this name, the VLAN already has a link with another name
	}
	if l.Own {
		rtnl.MarkOwn(&complete, name)
	}
	joinVLANs(&complete, br, plan.VLANRange{First: id, Last: id}, vlanOfBridge)
	if err := n.Send(complete); err != nil {
		return err
	}
	rtnl.SetUp(&up, name)
	return n.Send(up)
}

// vlanMode selects whether the frames of a VLAN are tagged on a link, and whether the link is the
// bridge itself (see bridge(8), "bridge vlan").
type vlanMode int

const (
	vlanTagged   vlanMode = iota // for a port, whose frames are tagged
	vlanNative                   // for a port, whose frames are untagged
	vlanOfBridge                 // for the bridge itself, whose frames are tagged
)

// joinVLANs adds to the batch a request that adds a port, or a bridge, to a range of VLANs.
func joinVLANs(b *netns.Batch, l rtnl.Link, r plan.VLANRange, mode vlanMode) {
	b.Add(fmt.Sprintf("add %s to VLANs %d to %d", l.Name, r.First, r.Last), vlanRequest(unix.RTM_SETLINK, l, r, mode))
}

// leaveVLAN adds to the batch a request that removes a port, or a bridge, from a VLAN.
func leaveVLAN(b *netns.Batch, l rtnl.Link, id int, mode vlanMode) {
	b.Ensure(fmt.Sprintf("remove %s from VLAN %d", l.Name, id), vlanRequest(unix.RTM_DELLINK, l, plan.VLANRange{First: id, Last: id}, mode), unix.ENOENT)
}

// vlanRequest returns a request that adds a port or a bridge to VLANs (verb RTM_SETLINK), or
// removes it from VLANs (verb RTM_DELLINK).
func vlanRequest(verb int, l rtnl.Link, r plan.VLANRange, mode vlanMode) *nl.NetlinkRequest {
	var side, flags uint16 = nl.BRIDGE_FLAGS_MASTER, 0
	switch mode {
	case vlanNative:
		flags = nl.BRIDGE_VLAN_INFO_PVID | nl.BRIDGE_VLAN_INFO_UNTAGGED
	case vlanOfBridge:
		side = nl.BRIDGE_FLAGS_SELF
	}
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(nl.IFLA_BRIDGE_FLAGS, nl.Uint16Attr(side))
	add := func(id int, flags uint16) {
		spec.AddRtAttr(nl.IFLA_BRIDGE_VLAN_INFO, (&nl.BridgeVlanInfo{Flags: flags, Vid: uint16(id)}).Serialize())
	}
	if r.First == r.Last { // the kernel refuses a range of one VLAN
		add(r.First, flags)
	} else {
		add(r.First, flags|nl.BRIDGE_VLAN_INFO_RANGE_BEGIN)
		add(r.Last, flags|nl.BRIDGE_VLAN_INFO_RANGE_END)
	}
	req := nl.NewNetlinkRequest(verb, 0)
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(l.Index)
	req.AddData(msg)
	req.AddData(spec)
	return req
}

// TagPort adds a port to the VLANs of its network. The kernel adds each new port to the default
// VLAN of the bridge. TagPort removes the port from this VLAN.
func TagPort(n *netns.Namespace, p *plan.Port) error {
	v := p.Network.VLANs
	if !v.Any() {
		return nil
	}
	port, err := rtnl.ByName(n, p.LinkName())
	if err != nil {
		return err
	}
	br, err := BridgeOf(n, port)
	if err != nil {
		return err
	}
	var b netns.Batch
	AddVLANs(&b, p, port, br)
	return n.Send(b)
}

// AddVLANs adds the requests of TagPort to the batch. The parameter link is the link of the port.
// This link is already a port of bridge br, or an earlier request of the batch adds this link to
// br.
func AddVLANs(b *netns.Batch, p *plan.Port, link, br rtnl.Link) {
	v := p.Network.VLANs
	if !v.Any() {
		return
	}
	if br.DefaultVLAN != 0 && !v.KeepDefault {
		leaveVLAN(b, link, br.DefaultVLAN, vlanTagged)
	}
	for _, r := range v.Trunk {
		joinVLANs(b, link, r, vlanTagged)
	}
	if id := untagged(v); id != 0 { // last, because this VLAN may be in the trunk too, with tagged frames
		joinVLANs(b, link, plan.VLANRange{First: id, Last: id}, vlanNative)
	}
}

// VerifyVLANs compares the VLANs of a port with the VLANs of its network.
func VerifyVLANs(n *netns.Namespace, p *plan.Port, br, port rtnl.Link) error {
	v := p.Network.VLANs
	if !v.Any() {
		return nil
	}
	h, err := n.Library()
	if err != nil {
		return err
	}
	var all map[int32][]*nl.BridgeVlanInfo
	if err = netns.Repeat(func() (err error) { all, err = h.BridgeVlanList(); return err }); err != nil {
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

// DeleteVLANLinks deletes our VLAN links on a bridge that continues to exist, and removes the
// bridge from their VLANs. One batch does both: if the links were deleted first, a later call could
// not find out the VLANs of the bridge.
func DeleteVLANLinks(n *netns.Namespace, br rtnl.Link) error {
	all, err := allLinks(n)
	if err != nil {
		return err
	}
	var b netns.Batch
	for _, l := range all {
		if l.Kind == "vlan" && l.Peer == br.Index && l.Own {
			leaveVLAN(&b, br, l.VLAN, vlanOfBridge)
			b.Ensure("delete link "+l.Name, rtnl.DeletionRequest(l), unix.ENODEV)
		}
	}
	return n.Send(b)
}
