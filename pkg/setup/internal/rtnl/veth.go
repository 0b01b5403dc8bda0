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

// Veth is a pair of interfaces that is still to be made: one end here, the other
// in peerNamespace.
type Veth struct {
	Name, Peer       string
	MAC, PeerMAC     net.HardwareAddr
	PeerNamespace    *netns.Namespace
	MTU, MasterIndex int // master 0: none
}

// Request is the one message that makes the pair, each end under its name in
// its place. Making both ends here and moving one costs ten times as much: the
// kernel waits for all readers of the device to be gone (netdev_run_todo).
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

// Ethernet lists the attributes that both ends have.
func Ethernet(name string, mac net.HardwareAddr, mtu int) []*nl.RtAttr {
	attrs := []*nl.RtAttr{
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, mac),
		// One queue each way, where the kernel would make one for each processor
		// and a folder in sysfs for each queue (veth_get_num_queues in
		// drivers/net/veth.c). A veth has no use for more, unless XDP or GRO is
		// switched on: it sends without a lock and receives through the backlog
		// of the processor that it is on.
		nl.NewRtAttr(unix.IFLA_NUM_TX_QUEUES, nl.Uint32Attr(1)),
		nl.NewRtAttr(unix.IFLA_NUM_RX_QUEUES, nl.Uint32Attr(1)),
	}
	if mtu != 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
	}
	return attrs
}

// EndConfig is what a link of ours gets in its namespace.
type EndConfig struct {
	Addresses        []netip.Prefix
	Routes           []plan.Route // in an order in which each finds its gateway
	Sysctls          map[string]string
	DetectDuplicates bool // duplicates of IPv6 addresses
	NoQuerier        bool // nobody on its link listens to what it reports of multicast groups
	Autoconfigured   bool // the kernel's defaults for IPv6 stay: generated addresses, router advertisements
}

// has6 says whether it has an IPv6 address.
func (i EndConfig) has6() bool {
	return slices.ContainsFunc(i.Addresses, func(a netip.Prefix) bool { return a.Addr().Is6() })
}

// Configure sets a link of ours up, and lo with it, and gives it what is to be inside.
// It works without the kernel's own ideas about IPv6: generated addresses, duplicate
// address detection and router advertisements, all of which have to be off before it is
// up. They stay on where the network's owner brings the addresses.
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
	if to.has6() && !to.Autoconfigured {
		// IPv6 wants a link-local address on every interface (RFC 4291, section
		// 2.1). Ours needs no second to be tried for duplicates.
		addresses = slices.Insert(slices.Clone(addresses), 0, LinkLocal(l.MAC))
	}
	if err := n.Do(func() error { return to.writeSysctls(name) }); err != nil {
		return err
	}
	var up netns.Batch // in the order in which one needs the other
	SetUp(&up, name)
	for _, a := range addresses {
		AddAddress(&up, l, a, to.DetectDuplicates)
	}
	for _, r := range to.Routes {
		addRoute(&up, l, r)
	}
	return n.Send(up)
}

// writeSysctls sets those of a link in the thread's namespace.
func (i EndConfig) writeSysctls(name string) error {
	const hour = "3600000" // milliseconds
	conf := "ipv6/conf/" + name + "/"
	if i.has6() {
		if i.NoQuerier {
			// It tells once of the groups that it joins, where the kernel would tell again
			// within a second in case that was lost, and now does at any time within the hour
			// (RFC 3810, section 6.1): each report goes to all ports of a bridge that does not
			// snoop, and costs their containers a look. Where this fails they have that look.
			_ = netns.WriteSysctl(conf+"mldv2_unsolicited_report_interval", hour)
		}
		if err := netns.WriteSysctl(conf+"disable_ipv6", "0"); err != nil {
			return err
		}
	}
	if !i.Autoconfigured { // a router on the link must not add addresses and routes of its own
		err := netns.WriteSysctlIfAny(conf+"accept_ra", "0")
		// A read-only /proc/sys is no reason to refuse a network that has not asked for IPv6.
		if err != nil && (i.has6() || !errors.Is(err, unix.EROFS)) {
			return err
		}
	}
	for key, value := range i.Sysctls {
		if err := netns.WriteSysctl(key, value); err != nil {
			return err
		}
	}
	return nil
}
