package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Links looks for the given addresses on the links of the host. It returns an uplink for each
// address that it finds, in the order of the given addresses. It also returns the subnets of all
// links. It omits the links whose names are in skip, and VLAN links on them.
func (h *Host) Links(addresses []netip.Addr, skip ...string) (uplinks []cluster.Uplink, locals []cluster.Local, err error) {
	links, err := setup.Dump(h.nl.LinkList)
	if err != nil {
		return nil, nil, fmt.Errorf("list links: %w", err)
	}
	byIndex := map[int]*netlink.LinkAttrs{}
	for _, l := range links {
		byIndex[l.Attrs().Index] = l.Attrs()
	}
	all, err := setup.Dump(func() ([]netlink.Addr, error) { return h.nl.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, nil, fmt.Errorf("list addresses: %w", err)
	}
	holder := map[netip.Addr]*netlink.LinkAttrs{}
	for _, a := range all {
		l, subnet := byIndex[a.LinkIndex], prefixOf(a.IPNet)
		if l == nil {
			continue
		}
		if name, _, _ := strings.Cut(l.Name, "."); slices.Contains(skip, name) {
			continue
		}
		holder[subnet.Addr()] = l
		if !subnet.Addr().IsLinkLocalUnicast() && !subnet.Addr().IsLoopback() {
			locals = append(locals, cluster.Local{Link: l.Name, Subnet: subnet.Masked()})
		}
	}
	onLink, err := h.onLink()
	if err != nil {
		return nil, nil, err
	}
	for _, a := range addresses {
		if l := holder[a]; l != nil {
			uplinks = append(uplinks, cluster.Uplink{Address: a, Link: l.Name, MTU: l.MTU, OnLink: onLink[l.Index]})
		}
	}
	return uplinks, locals, nil
}

// onLink returns the destinations that each link reaches without a gateway. The key of the map is
// the index of the link. onLink omits the default route of a point-to-point link.
func (h *Host) onLink() (map[int][]netip.Prefix, error) {
	onLink := map[int][]netip.Prefix{}
	return onLink, h.each(func(r netlink.Route) {
		if p := pathOf(r); r.Type == unix.RTN_UNICAST && r.Protocol != protocol && !p.gateway.IsValid() &&
			len(r.MultiPath) == 0 && r.Dst != nil && prefixOf(r.Dst).Bits() > 0 && !r.Dst.IP.IsLinkLocalUnicast() {
			onLink[r.LinkIndex] = append(onLink[r.LinkIndex], prefixOf(r.Dst))
		}
	})
}
