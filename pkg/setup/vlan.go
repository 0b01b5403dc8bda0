package setup

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// VLANs are those that the ports of a network belong to, on a bridge that keeps them
// apart (Documentation/networking/bridge.rst, "VLAN"). The zero VLANs are none at all.
type VLANs struct {
	Native      int         // of frames without a tag, and where the gateways are; 1..4094, 0 is none
	Untagged    int         // of frames without a tag, where Native is none; gateways are on the bridge itself
	Trunk       []VLANRange // of frames that keep their tags
	KeepDefault bool        // ports stay in the bridge's default VLAN besides (ip-link(8), "vlan_default_pvid")
}

// VLANRange is from First to Last, both included.
type VLANRange struct{ First, Last int }

const (
	// MaxVLAN is the last VLAN there may be: IEEE 802.1Q, table 9-2.
	MaxVLAN = 4094

	vlanID           = 1 // IFLA_VLAN_ID in linux/if_link.h
	bridgeVLANFilter = 7 // IFLA_BR_VLAN_FILTERING
)

// ErrNoVLANs says that a bridge of somebody else's does not keep VLANs apart.
var ErrNoVLANs = errors.New("it does not filter by VLAN")

func (v VLANs) any() bool { return v.Native != 0 || len(v.Trunk) > 0 }

// untagged is the VLAN of frames without a tag; 0 is none, or the bridge's default one.
func (v VLANs) untagged() int { return cmp.Or(v.Native, v.Untagged) }

// RoutedBy is the link by which the host routes for the network: the bridge, or a VLAN
// link on it. Its name has to be of up to 15 letters.
func (net *Network) RoutedBy() string {
	if net.VLANs.Native == 0 || len(net.Gateways) == 0 {
		return net.Bridge
	}
	return fmt.Sprintf("%s.%d", net.Bridge, net.VLANs.Native)
}

// links lists the links that a network's packets come and go by: br_netfilter shows those
// of a VLAN as the bridge's.
func (net *Network) links() []string {
	return slices.Compact([]string{net.Bridge, net.RoutedBy()})
}

// belongs says whether a name is that of a bridge or of a VLAN link on it, which may be gone
// already. Another bridge may be called so, too.
func (n *Namespace) belongs(name, bridge string) bool {
	if name == bridge || !strings.HasPrefix(name, bridge+".") {
		return name == bridge
	}
	l, err := n.link(name)
	return err != nil || l.kind != "bridge"
}

// vlanLacks looks for what a bridge needs for VLANs, with the link by which the network is
// routed.
func (n *Namespace) vlanLacks(net *Network, br, routed link) (lacks []lack, err error) {
	if !net.VLANs.any() {
		return nil, nil
	}
	if err := n.mayFilterVLANs(br); err != nil {
		return nil, err
	}
	if !br.filtersVLANs {
		lacks = append(lacks, lack{what: "VLAN filtering of bridge " + net.Bridge, mend: func() error { return n.filterVLANs(net.Bridge) }})
	}
	if net.RoutedBy() == net.Bridge {
		return lacks, nil
	}
	switch {
	case routed.index == 0:
	case routed.kind != "vlan" || routed.vlan != net.VLANs.Native || routed.peer != br.index:
		return nil, fmt.Errorf("route VLAN %d of bridge %s by %s: the name is taken: %w", net.VLANs.Native, net.Bridge, routed.name, ErrTaken)
	case routed.up:
		return lacks, nil
	}
	return append(lacks, lack{what: "link " + net.RoutedBy(), mend: func() error { return n.ensureVLANLink(net) }}), nil
}

// mayFilterVLANs refuses to change a bridge of somebody else's: its ports could lose each
// other.
func (n *Namespace) mayFilterVLANs(l link) error {
	if l.index == 0 || l.filtersVLANs || n.made(l) {
		return nil
	}
	return fmt.Errorf("use VLANs on bridge %s: %w, and was there before; have it do so by: ip link set %s type bridge vlan_filtering 1", l.name, ErrNoVLANs, l.name)
}

// filterVLANs has a bridge of ours keep VLANs apart.
func (n *Namespace) filterVLANs(bridge string) error {
	var b batch
	req := b.add("filter by VLAN on bridge "+bridge, newLinkRequest(bridge, 0))
	req.AddData(linkInfo("bridge", nl.NewRtAttr(bridgeVLANFilter, nl.Uint8Attr(1))))
	err := n.send(b)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = fmt.Errorf("%w; this kernel is without CONFIG_BRIDGE_VLAN_FILTERING", err)
	}
	return err
}

// ensureVLANLink makes the link by which the host routes for a VLAN of a bridge, and lets
// the bridge itself into the VLAN.
func (n *Namespace) ensureVLANLink(net *Network) error {
	br, err := n.link(net.Bridge)
	if err != nil {
		return err
	}
	name := net.RoutedBy()
	var create, up batch
	make := create.add("create VLAN link "+name, newLinkRequest(name, unix.NLM_F_CREATE|unix.NLM_F_EXCL))
	make.AddData(nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(br.index))))
	make.AddData(linkInfo("vlan", nl.NewRtAttr(vlanID, nl.Uint16Attr(uint16(net.VLANs.Native)))))
	switch err := n.send(create); {
	case err == nil:
		up.markOwn(name)
	case !errors.Is(err, unix.EEXIST): // with EEXIST it is not ours
		return err
	}
	up.setUp(name)
	return errors.Join(n.send(up), n.changeVLAN(br, VLANRange{net.VLANs.Native, net.VLANs.Native}, vlanOfBridge))
}

// How a link is in a VLAN, as `bridge vlan` has it.
type vlanMode int

const (
	vlanTagged   vlanMode = iota // a port, with tags
	vlanNative                   // a port, without
	vlanOfBridge                 // the bridge itself, with tags
)

// changeVLAN puts a port, or a bridge, into VLANs.
func (n *Namespace) changeVLAN(l link, r VLANRange, mode vlanMode) error {
	h, err := n.library()
	if err != nil {
		return err
	}
	last := uint16(r.Last)
	if r.Last == r.First {
		last = 0 // no range
	}
	of := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: l.index}}
	native, self := mode == vlanNative, mode == vlanOfBridge
	if err := h.BridgeVlanAddRange(of, uint16(r.First), last, native, native, self, !self); err != nil {
		return fmt.Errorf("put %s into VLANs %d to %d: %w", l.name, r.First, r.Last, err)
	}
	return nil
}

// tagPort puts a port into the VLANs of its network.
func (n *Namespace) tagPort(p *Port) error {
	v := p.Network.VLANs
	if !v.any() {
		return nil
	}
	port, err := n.link(p.name())
	if err != nil {
		return err
	}
	if !v.KeepDefault {
		if err := n.leaveDefaultVLAN(port); err != nil {
			return err
		}
	}
	for _, r := range v.Trunk {
		if err := n.changeVLAN(port, r, vlanTagged); err != nil {
			return err
		}
	}
	if id := v.untagged(); id != 0 { // last: what is native is so although it is in the trunk too
		return n.changeVLAN(port, VLANRange{id, id}, vlanNative)
	}
	return nil
}

// leaveDefaultVLAN takes a port out of the default VLAN of its bridge, which it was put into when it
// joined.
func (n *Namespace) leaveDefaultVLAN(port link) error {
	br, err := n.bridgeOf(port)
	if br.defaultVLAN == 0 || err != nil {
		return err
	}
	h, err := n.library()
	if err != nil {
		return err
	}
	of := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: port.index}}
	if err := h.BridgeVlanDel(of, uint16(br.defaultVLAN), false, false, false, true); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("take %s out of VLAN %d: %w", port.name, br.defaultVLAN, err)
	}
	return nil
}

// verifyVLANs compares the VLANs of a port with those of its network.
func (n *Namespace) verifyVLANs(p *Port, br, port link) error {
	v := p.Network.VLANs
	if !v.any() {
		return nil
	}
	h, err := n.library()
	if err != nil {
		return err
	}
	all, err := h.BridgeVlanList()
	if err != nil {
		return fmt.Errorf("list VLANs of ports: %w", err)
	}
	present := map[int]*nl.BridgeVlanInfo{}
	for _, info := range all[int32(port.index)] {
		present[int(info.Vid)] = info
	}
	var wrong []error
	untagged := v.untagged()
	if untagged != 0 {
		info := present[untagged]
		native := info != nil && info.PortVID() && info.EngressUntag()
		wrong = append(wrong, differ(fmt.Sprintf("port %s natively in VLAN %d", port.name, untagged), native, true))
	}
	wanted := func(id int) bool {
		return slices.ContainsFunc(v.Trunk, func(r VLANRange) bool { return r.First <= id && id <= r.Last })
	}
	for id := 1; id <= MaxVLAN; id++ {
		if id == untagged || id == br.defaultVLAN && v.KeepDefault {
			continue
		}
		if is := present[id] != nil; is != wanted(id) {
			wrong = append(wrong, differ(fmt.Sprintf("port %s in VLAN %d", port.name, id), is, wanted(id)))
		}
	}
	return errors.Join(wrong...)
}

// deleteVLANLinks deletes our VLAN links on a bridge that stays, and takes the bridge out of
// their VLANs.
func (n *Namespace) deleteVLANLinks(br link) error {
	all, err := n.allLinks()
	ours := slices.DeleteFunc(all, func(l link) bool { return l.kind != "vlan" || l.peer != br.index || l.alias != owner })
	if len(ours) == 0 || err != nil {
		return err
	}
	h, err := n.library()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range ours {
		errs = append(errs, n.deleteLink(l.name))
		of := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: br.index}}
		if err := h.BridgeVlanDel(of, uint16(l.vlan), false, false, true, false); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("take %s out of VLAN %d: %w", br.name, l.vlan, err))
		}
	}
	return errors.Join(errs...)
}
