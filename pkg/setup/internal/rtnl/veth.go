package rtnl

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// vethInfoPeer is VETH_INFO_PEER in linux/veth.h.
const vethInfoPeer = 1

// Veth describes a veth pair. One end is in the namespace in which the request is sent. The peer is in
// PeerNamespace.
type Veth struct {
	Name, Peer       string
	MAC, PeerMAC     net.HardwareAddr
	PeerNamespace    *netns.Namespace
	MTU, MasterIndex int // MTU in bytes, 0 means the kernel's default; MasterIndex 0 means no bridge
}

// Request returns the request that creates a veth pair with each end in its own namespace. Creating
// both ends in one namespace and moving one end would take ten times as long: the kernel delays a
// move until no processor can have a pointer to the link (netdev_run_todo in net/core/dev.c).
func (v Veth) Request() *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	for _, attr := range Ethernet(v.Name, v.MAC, v.MTU) {
		req.AddData(attr)
	}
	if v.MasterIndex != 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(v.MasterIndex))))
	}
	peer := nl.NewRtAttr(vethInfoPeer, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	for _, attr := range Ethernet(v.Peer, v.PeerMAC, v.MTU) {
		peer.AddChild(attr)
	}
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(v.PeerNamespace.Handle)))
	req.AddData(LinkInfo("veth", peer))
	return req
}

// Ethernet returns the attributes of a link with this name, MAC address and MTU.
func Ethernet(name string, mac net.HardwareAddr, mtu int) []*nl.RtAttr {
	attrs := []*nl.RtAttr{
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, mac),
		// One queue in each direction is enough. By default the kernel creates a queue for each
		// processor, and a folder in sysfs for each queue (veth_get_num_queues in
		// drivers/net/veth.c). A veth link uses several queues only with XDP or GRO. Without them,
		// it sends without a lock, and receives through the backlog of the current processor.
		nl.NewRtAttr(unix.IFLA_NUM_TX_QUEUES, nl.Uint32Attr(1)),
		nl.NewRtAttr(unix.IFLA_NUM_RX_QUEUES, nl.Uint32Attr(1)),
	}
	if mtu != 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
	}
	return attrs
}

// EndConfig is the configuration of the container's end of a veth pair.
type EndConfig struct {
	Addresses        []netip.Prefix
	Routes           []plan.Route // the route to a gateway comes before the routes through that gateway
	Sysctls          map[string]string
	DetectDuplicates bool // run duplicate address detection for IPv6 addresses
	NoQuerier        bool // no multicast querier is on the link, so reports of multicast groups are useless
	Autoconfigured   bool // keep the kernel's defaults for IPv6: generated addresses, router advertisements
}

// hasIPv6 reports whether the configuration has an IPv6 address.
func (c EndConfig) hasIPv6() bool {
	return slices.ContainsFunc(c.Addresses, func(a netip.Prefix) bool { return a.Addr().Is6() })
}

// Configure configures the link called name in a container's namespace, and sets the link and lo
// up. Unless Autoconfigured is true, it first switches off IPv6 addresses that the kernel generates
// or takes from router advertisements.
func Configure(n *netns.Namespace, name string, to EndConfig) error {
	var before netns.Batch
	SetUp(&before, "lo")
	if !to.Autoconfigured {
		DisableGeneratedIPv6(&before, name)
	}
	if err := n.Send(before); err != nil {
		return err
	}
	l, err := ByName(n, name)
	if err != nil {
		return err
	}
	addresses := to.Addresses
	if to.hasIPv6() && !to.Autoconfigured {
		// Every interface with IPv6 needs a link-local address (RFC 4291, section 2.1). We add it,
		// because DisableGeneratedIPv6 stops the kernel from generating it.
		addresses = slices.Insert(slices.Clone(addresses), 0, LinkLocal(l.MAC))
	}
	if err := n.Do(func() error { return to.writeSysctls(name) }); err != nil {
		return err
	}
	var up netns.Batch // in this order, because a route needs an address and a link that is up
	SetUp(&up, name)
	for _, a := range addresses {
		AddAddress(&up, l, a, to.DetectDuplicates)
	}
	for _, r := range to.Routes {
		addRoute(&up, l, r)
	}
	return n.Send(up)
}

// writeSysctls sets the sysctls of the link called name, in the namespace of the calling thread.
func (c EndConfig) writeSysctls(name string) error {
	const hour = "3600000" // milliseconds
	conf := "ipv6/conf/" + name + "/"
	if c.hasIPv6() {
		if c.NoQuerier {
			// By default the kernel repeats a report of multicast groups within a second (RFC 3810,
			// section 6.1). A bridge without multicast snooping floods each report to all
			// containers. With this value, the kernel repeats the report within an hour. An error
			// is ignored, because without the sysctl, containers only receive more reports.
			_ = netns.WriteSysctl(conf+"mldv2_unsolicited_report_interval", hour)
		}
		if err := netns.WriteSysctl(conf+"disable_ipv6", "0"); err != nil {
			return err
		}
	}
	if !c.Autoconfigured { // so that routers on the link add no addresses and routes
		err := netns.WriteSysctlIfAny(conf+"accept_ra", "0")
		// On a network without IPv6, a read-only /proc/sys is no error, because accept_ra concerns
		// only IPv6.
		if err != nil && (c.hasIPv6() || !errors.Is(err, unix.EROFS)) {
			return err
		}
	}
	for key, value := range c.Sysctls {
		if err := netns.WriteSysctl(key, value); err != nil {
			return err
		}
	}
	return nil
}
