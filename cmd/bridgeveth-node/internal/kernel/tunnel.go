package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// The VXLAN device has the number 97 as its network identifier (VNI) and as its link group. The
// group shows that the agent has made the device: "ip link show group 97". The agent does not use
// an alias for this, because setting an alias needs a second request. An agent that was killed
// between the two requests would leave a device without an alias.
const vxlanID, group = protocol, protocol

// ErrNotOwn is returned if a link has the name of the VXLAN device, but the agent did not make this
// link.
var ErrNotOwn = errors.New(`the agent did not make this link; delete it with "ip link del ` + cluster.TunnelLink + `", or rename it`)

// applyTunnel corrects the VXLAN device, its addresses, its forwarding entries and its neighbour
// entries. It returns the index of the device, or 0 if there is none.
func (h *Host) applyTunnel(t *cluster.Tunnel) (changes []string, index int, err error) {
	if t == nil {
		return nil, 0, nil
	}
	mac, err := net.ParseMAC(t.MAC)
	if err != nil {
		return nil, 0, err
	}
	changes, l, err := h.device(t, mac)
	if err != nil {
		return changes, 0, fmt.Errorf("VXLAN device %s: %w", cluster.TunnelLink, err)
	}
	index = l.Attrs().Index
	for _, apply := range []func(netlink.Link, *cluster.Tunnel) ([]string, error){h.applyAddresses, h.applyForwarding, h.applyNeighbours} {
		more, failed := apply(l, t)
		changes, err = append(changes, more...), errors.Join(err, failed)
	}
	return changes, index, err
}

// device creates or corrects the VXLAN device itself. If a parameter is wrong that the kernel
// cannot change, such as the local address or the port, device deletes the VXLAN device and creates
// it again.
func (h *Host) device(t *cluster.Tunnel, mac net.HardwareAddr) (changes []string, l netlink.Link, err error) {
	l, err = h.ownTunnel()
	if err != nil {
		return nil, nil, err
	}
	if l != nil {
		v := l.(*netlink.Vxlan)
		if addrOf(v.SrcAddr) != t.Local || v.Port != t.Port || v.VxlanId != vxlanID || v.Learning {
			if err := h.nl.LinkDel(l); err != nil {
				return nil, nil, err
			}
			changes, l = append(changes, "remove link "+cluster.TunnelLink+" with other parameters"), nil
		}
	}
	if l == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Group, attrs.MTU, attrs.HardwareAddr = cluster.TunnelLink, group, t.MTU, mac
		err := h.nl.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: vxlanID, SrcAddr: t.Local.AsSlice(), Port: t.Port, Learning: false})
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("the kernel has no VXLAN (CONFIG_VXLAN, module vxlan); load the module, or use --routing direct or none: %w", err)
		}
		if err != nil {
			return changes, nil, err
		}
		changes = append(changes, "add link "+cluster.TunnelLink)
		if l, err = h.nl.LinkByName(cluster.TunnelLink); err != nil {
			return changes, nil, err
		}
	}
	a := l.Attrs()
	for _, part := range []struct {
		what string
		ok   bool
		set  func() error
	}{
		{fmt.Sprintf("MTU %d", t.MTU), a.MTU == t.MTU, func() error { return h.nl.LinkSetMTU(l, t.MTU) }},
		{"MAC " + t.MAC, a.HardwareAddr.String() == t.MAC, func() error { return h.nl.LinkSetHardwareAddr(l, mac) }},
		{"up", a.Flags&net.FlagUp != 0, func() error { return h.setUp(l) }},
	} {
		if part.ok {
			continue
		}
		if err := part.set(); err != nil {
			return changes, nil, fmt.Errorf("set %s: %w", part.what, err)
		}
		changes = append(changes, "set link "+cluster.TunnelLink+" "+part.what)
	}
	return changes, l, nil
}

// setUp sets the VXLAN device up. Before that, it tells the kernel not to generate a link-local
// IPv6 address for the device. The device does not need this address, and the address would make
// the kernel join multicast groups. A kernel without IPv6 refuses this request, which does no harm.
func (h *Host) setUp(l netlink.Link) error {
	if err := h.nl.LinkSetIP6AddrGenMode(l, nl.IN6_ADDR_GEN_MODE_NONE); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("switch off address generation: %w", err)
	}
	return h.nl.LinkSetUp(l)
}

// ownTunnel returns the VXLAN device, or nil if there is none. It returns ErrNotOwn if the agent
// did not make the link of this name.
func (h *Host) ownTunnel() (netlink.Link, error) {
	l, err := h.nl.LinkByName(cluster.TunnelLink)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, isVXLAN := l.(*netlink.Vxlan); !isVXLAN || l.Attrs().Group != group {
		return nil, ErrNotOwn
	}
	return l, nil
}

// removeTunnel removes the VXLAN device. It keeps a link of the same name that the agent did not
// create.
func (h *Host) removeTunnel() ([]string, error) {
	l, err := h.ownTunnel()
	if l == nil || err != nil {
		if errors.Is(err, ErrNotOwn) {
			err = nil
		}
		return nil, err
	}
	if err := absent(h.nl.LinkDel(l)); err != nil {
		return nil, fmt.Errorf("remove link %s: %w", cluster.TunnelLink, err)
	}
	return []string{"remove link " + cluster.TunnelLink}, nil
}

// applyAddresses corrects the addresses of the VXLAN device. They are the source addresses of
// packets from the host itself to pods on other nodes, so that the replies come back through the
// tunnel.
func (h *Host) applyAddresses(l netlink.Link, t *cluster.Tunnel) ([]string, error) {
	type nothing struct{}
	wanted, present := map[netip.Prefix]nothing{}, map[netip.Prefix]nothing{}
	for _, p := range t.Addresses {
		wanted[p] = nothing{}
	}
	all, err := setup.Dump(func() ([]netlink.Addr, error) { return h.nl.AddrList(l, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range all {
		present[prefixOf(a.IPNet)] = nothing{}
	}
	request := func(p netip.Prefix) *netlink.Addr {
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		return a
	}
	return converge(wanted, present,
		func(p netip.Prefix, _ nothing) error { return h.nl.AddrReplace(l, request(p)) },
		func(p netip.Prefix, _ nothing) error { return absent(h.nl.AddrDel(l, request(p))) },
		func(p netip.Prefix, _ nothing) string {
			return fmt.Sprintf("address %v dev %s", p, cluster.TunnelLink)
		})
}

// applyForwarding corrects the forwarding entries (fdb) of the VXLAN device. Each entry has the MAC
// address of a peer's VXLAN device, and the InternalIP of the peer, to which the outer packets go.
func (h *Host) applyForwarding(l netlink.Link, t *cluster.Tunnel) ([]string, error) {
	wanted, present := map[string]netip.Addr{}, map[string]netip.Addr{}
	for _, p := range t.Peers {
		wanted[p.MAC] = p.Remote
	}
	all, err := setup.Dump(func() ([]netlink.Neigh, error) { return h.nl.NeighList(l.Attrs().Index, unix.AF_BRIDGE) })
	if err != nil {
		return nil, fmt.Errorf("list forwarding entries: %w", err)
	}
	for _, n := range all {
		present[n.HardwareAddr.String()] = addrOf(n.IP)
	}
	request := func(mac string, remote netip.Addr) *netlink.Neigh {
		hardware, _ := net.ParseMAC(mac) // valid, because the text comes from cluster.MAC or the kernel
		return &netlink.Neigh{
			LinkIndex: l.Attrs().Index, Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF, State: unix.NUD_PERMANENT,
			HardwareAddr: hardware, IP: remote.AsSlice(),
		}
	}
	return converge(wanted, present,
		func(mac string, remote netip.Addr) error { return h.nl.NeighSet(request(mac, remote)) },
		func(mac string, remote netip.Addr) error { return absent(h.nl.NeighDel(request(mac, remote))) },
		func(mac string, remote netip.Addr) string {
			return fmt.Sprintf("forwarding entry %s dst %v dev %s", mac, remote, cluster.TunnelLink)
		})
}

// applyNeighbours corrects the neighbour entries of the VXLAN device. Each entry has the gateway of
// a route and the MAC address of the peer's VXLAN device.
func (h *Host) applyNeighbours(l netlink.Link, t *cluster.Tunnel) ([]string, error) {
	wanted, present := map[netip.Addr]string{}, map[netip.Addr]string{}
	for _, p := range t.Peers {
		for _, g := range p.Gateways {
			wanted[g] = p.MAC
		}
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		all, err := setup.Dump(func() ([]netlink.Neigh, error) { return h.nl.NeighList(l.Attrs().Index, family) })
		if err != nil {
			return nil, fmt.Errorf("list neighbour entries: %w", err)
		}
		for _, n := range all {
			if n.State&unix.NUD_PERMANENT != 0 { // the kernel's own entries for multicast are NUD_NOARP
				present[addrOf(n.IP)] = n.HardwareAddr.String()
			}
		}
	}
	request := func(gateway netip.Addr, mac string) *netlink.Neigh {
		hardware, _ := net.ParseMAC(mac) // valid, because the text comes from cluster.MAC or the kernel
		return &netlink.Neigh{LinkIndex: l.Attrs().Index, State: unix.NUD_PERMANENT, IP: gateway.AsSlice(), HardwareAddr: hardware}
	}
	return converge(wanted, present,
		func(g netip.Addr, mac string) error { return h.nl.NeighSet(request(g, mac)) },
		func(g netip.Addr, mac string) error { return absent(h.nl.NeighDel(request(g, mac))) },
		func(g netip.Addr, mac string) string {
			return fmt.Sprintf("neighbour entry %v lladdr %s dev %s", g, mac, cluster.TunnelLink)
		})
}
