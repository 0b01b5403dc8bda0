package setup

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// vethInfoPeer is VETH_INFO_PEER in linux/veth.h.
const vethInfoPeer = 1

// veth is a pair of interfaces that is still to be made: one end here, the other
// in peerNamespace.
type veth struct {
	name, peer       string
	mac, peerMAC     net.HardwareAddr
	peerNamespace    *Namespace
	mtu, masterIndex int // master 0: none
}

// request is the one message that makes the pair, each end under its name in
// its place. Making both ends here and moving one costs ten times as much: the
// kernel waits for all readers of the device to be gone (netdev_run_todo).
func (v veth) request() *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	for _, attr := range ethernet(v.name, v.mac, v.mtu) {
		req.AddData(attr)
	}
	if v.masterIndex != 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(v.masterIndex))))
	}
	peer := nl.NewRtAttr(vethInfoPeer, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	for _, attr := range ethernet(v.peer, v.peerMAC, v.mtu) {
		peer.AddChild(attr)
	}
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(v.peerNamespace.handle)))
	req.AddData(linkInfo("veth", peer))
	return req
}

// ethernet lists the attributes that both ends have.
func ethernet(name string, mac net.HardwareAddr, mtu int) []*nl.RtAttr {
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

// End is one end of a veth pair that joins two namespaces directly.
type End struct {
	Namespace *Namespace
	Interface string
	Addresses []netip.Prefix
}

// Join connects two namespaces by a veth pair, both ends up. Deleting either
// end is the inverse. A pair that is there already is completed.
func Join(a, b End) error {
	pair := veth{name: a.Interface, peer: b.Interface, mac: randomMAC(), peerMAC: randomMAC(), peerNamespace: b.Namespace}
	var make batch
	make.add(fmt.Sprintf("create veth pair %s, %s", a.Interface, b.Interface), pair.request())
	if err := a.Namespace.send(make); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return errors.Join(
		a.Namespace.configure(a.Interface, inside{addresses: a.Addresses}),
		b.Namespace.configure(b.Interface, inside{addresses: b.Addresses}),
	)
}

// inside is what a link of ours gets in its namespace.
type inside struct {
	addresses []netip.Prefix
	routes    []Route // in an order in which each finds its gateway
	sysctls   map[string]string
	detect    bool // duplicates of IPv6 addresses
	unheard   bool // nobody on its link listens to what it reports of multicast groups
	automatic bool // the kernel's defaults for IPv6 stay: generated addresses, router advertisements
}

// has6 says whether it has an IPv6 address.
func (i inside) has6() bool {
	return slices.ContainsFunc(i.addresses, func(a netip.Prefix) bool { return a.Addr().Is6() })
}

// configure sets a link of ours up, and lo with it, and gives it what is to be inside.
// It works without the kernel's own ideas about IPv6: generated addresses, duplicate
// address detection and router advertisements, all of which have to be off before it is
// up. They stay on where the network's owner brings the addresses.
func (n *Namespace) configure(name string, to inside) error {
	var before batch
	before.setUp("lo")
	if !to.automatic {
		before.silenceIPv6(name)
	}
	if err := n.send(before); err != nil {
		return err
	}
	l, err := n.link(name)
	if err != nil {
		return err
	}
	addresses := to.addresses
	if to.has6() && !to.automatic {
		// IPv6 wants a link-local address on every interface (RFC 4291, section
		// 2.1). Ours needs no second to be tried for duplicates.
		addresses = slices.Insert(slices.Clone(addresses), 0, linkLocal(l.mac))
	}
	if err := n.Do(func() error { return to.writeSysctls(name) }); err != nil {
		return err
	}
	var up batch // in the order in which one needs the other
	up.setUp(name)
	for _, a := range addresses {
		up.addAddress(l, a, to.detect)
	}
	for _, r := range to.routes {
		up.addRoute(l, r)
	}
	return n.send(up)
}

// writeSysctls sets those of a link in the thread's namespace.
func (i inside) writeSysctls(name string) error {
	const hour = "3600000" // milliseconds
	conf := "ipv6/conf/" + name + "/"
	if i.has6() {
		if i.unheard {
			// It tells once of the groups that it joins, where the kernel would tell again
			// within a second in case that was lost, and now does at any time within the hour
			// (RFC 3810, section 6.1): each report goes to all ports of a bridge that does not
			// snoop, and costs their containers a look. Where this fails they have that look.
			_ = writeSysctl(conf+"mldv2_unsolicited_report_interval", hour)
		}
		if err := writeSysctl(conf+"disable_ipv6", "0"); err != nil {
			return err
		}
	}
	if !i.automatic { // a router on the link must not add addresses and routes of its own
		err := writeSysctlIfAny(conf+"accept_ra", "0")
		// A read-only /proc/sys is no reason to refuse a network that has not asked for IPv6.
		if err != nil && (i.has6() || !errors.Is(err, unix.EROFS)) {
			return err
		}
	}
	for key, value := range i.sysctls {
		if err := writeSysctl(key, value); err != nil {
			return err
		}
	}
	return nil
}
