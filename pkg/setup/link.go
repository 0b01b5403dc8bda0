package setup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// MinMTU is the least MTU of a bridge and of a veth pair, in bytes: RFC 791.
	MinMTU = 68
	// MaxMTU is the largest, in bytes: ETH_MAX_MTU in linux/if_ether.h.
	MaxMTU = 65535

	addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE in linux/if_link.h

	// extSkipStats is RTEXT_FILTER_SKIP_STATS in linux/rtnetlink.h: half of what
	// the kernel says about a link is counters.
	extSkipStats = 1 << 3

	brportState    = 1  // IFLA_BRPORT_STATE in linux/if_link.h
	brportMode     = 4  // IFLA_BRPORT_MODE: hairpin
	brportIsolated = 33 // IFLA_BRPORT_ISOLATED, Linux 4.18

	stateForwarding = 3 // BR_STATE_FORWARDING in linux/if_bridge.h

	inetConf      = 1  // IFLA_INET_CONF in linux/if_link.h: IPv4's sysctls of the link, 32 bits each
	forwarding    = 0  // where IPV4_DEVCONF_FORWARDING, and DEVCONF_FORWARDING, is among them
	routeLocalnet = 25 // where IPV4_DEVCONF_ROUTE_LOCALNET in linux/ip.h, which counts from 1, is among them
	inet6Conf     = 2  // IFLA_INET6_CONF: IPv6's
	acceptRA      = 3  // DEVCONF_ACCEPT_RA in linux/ipv6.h
)

// ErrTaken says that a name belongs to something else, which is left alone.
var ErrTaken = errors.New("it belongs to something else")

// link is what we need to know of a network interface.
type link struct {
	index       int
	name, alias string
	port        string // the name by which it is a port of ours: its own or an alternative one; "" is none
	kind        string // "bridge", "veth"; "" for the likes of a network card
	mac         net.HardwareAddr
	mtu         int // bytes
	up          bool
	running     bool // it has a carrier, and the kernel has seen it
	promiscuous bool
	forwards4   bool // the host routes IPv4 that comes by it
	forwards6   bool // and IPv6
	localnet    bool // 127.0.0.0/8 may come and go by it: route_localnet
	acceptsRA   bool // routers on it give the host addresses and routes
	limited     bool // what leaves by it goes through a token bucket, whoever made it
	peer        int  // index of a veth's other end, in its namespace; of what a VLAN link is on
	// peerNamespace numbers the namespace of peer, as the kernel has it; none where that is ours.
	peerNamespace []byte
	master        int  // index of the bridge that it is a port of; 0 is none
	forwarding    bool // as a port of a bridge
	hairpin       bool // as a port of a bridge
	isolated      bool // as a port of a bridge

	filtersVLANs bool // as a bridge
	defaultVLAN  int  // as a bridge: that its new ports are in, without a tag; 0 is none
	snoops       bool // as a bridge: what is sent to a multicast group goes to its members only
	vlan         int  // as a VLAN link, on the link of index peer
}

// link looks up the link called name; absent tells of an error whether there is
// none.
func (n *Namespace) link(name string) (link, error) {
	l, err := n.lookUp(nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if err != nil {
		return l, fmt.Errorf("look up link %s: %w", name, err)
	}
	return l, nil
}

// linkAt is link by index.
func (n *Namespace) linkAt(index int) (link, error) {
	at := nl.NewIfInfomsg(unix.AF_UNSPEC)
	at.Index = int32(index)
	l, err := n.lookUp(at)
	if err != nil {
		return l, fmt.Errorf("look up link number %d: %w", index, err)
	}
	return l, nil
}

// lookUp looks up the one link that a message is about.
func (n *Namespace) lookUp(about ...nl.NetlinkRequestData) (l link, err error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	for _, data := range about {
		req.AddData(data)
	}
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(extSkipStats)))
	messages, err := n.ask(unix.NETLINK_ROUTE, req)
	if err == nil && len(messages) != 1 {
		err = fmt.Errorf("got %d answers", len(messages))
	}
	if err != nil {
		return l, err
	}
	return parseLink(messages[0]), nil
}

// absent says whether err is that of a link that does not exist, or cannot: by a name that is
// too long.
func absent(err error) bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ERANGE) }

// parseLink reads an RTM_NEWLINK message.
func parseLink(m []byte) (l link) {
	header := nl.DeserializeIfInfomsg(m)
	l.index = int(header.Index)
	l.up, l.running, l.promiscuous = header.Flags&unix.IFF_UP != 0, header.Flags&unix.IFF_RUNNING != 0, header.Flags&unix.IFF_PROMISC != 0
	is := attrs(m[header.Len():])
	l.name, l.alias, l.mac = is.text(unix.IFLA_IFNAME), is.text(unix.IFLA_IFALIAS), slices.Clone(net.HardwareAddr(is.get(unix.IFLA_ADDRESS)))
	l.mtu, l.peer, l.master = is.integer(unix.IFLA_MTU), is.integer(unix.IFLA_LINK), is.integer(unix.IFLA_MASTER)
	l.peerNamespace = slices.Clone(is.get(linkNetNSID))
	l.limited = is.text(unix.IFLA_QDISC) == "tbf"
	families := is.get(unix.IFLA_AF_SPEC)
	l.forwards4 = families.in(unix.AF_INET, inetConf).sysctl(forwarding)
	l.forwards6 = families.in(unix.AF_INET6, inet6Conf).sysctl(forwarding)
	l.localnet = families.in(unix.AF_INET, inetConf).sysctl(routeLocalnet)
	l.acceptsRA = families.in(unix.AF_INET6, inet6Conf).sysctl(acceptRA)
	l.mayBePort(l.name)
	is.get(unix.IFLA_PROP_LIST).each(func(_ uint16, name []byte) { l.mayBePort(text(name, len(name))) })
	l.parseInfo(is.get(unix.IFLA_LINKINFO))
	return l
}

func (l *link) mayBePort(name string) {
	if isPort(name) {
		l.port = name
	}
}

// parseInfo reads IFLA_LINKINFO: the link's kind, and what its bridge says of it.
func (l *link) parseInfo(info attrs) {
	l.kind = info.text(nl.IFLA_INFO_KIND)
	data := info.get(nl.IFLA_INFO_DATA)
	switch l.kind {
	case "bridge":
		l.filtersVLANs = bytes.Equal(data.get(bridgeVLANFilter), []byte{1})
		if id := data.get(nl.IFLA_BR_VLAN_DEFAULT_PVID); len(id) == 2 {
			l.defaultVLAN = int(binary.NativeEndian.Uint16(id))
		}
		l.snoops = bytes.Equal(data.get(nl.IFLA_BR_MCAST_SNOOPING), []byte{1})
	case "vlan":
		if id := data.get(vlanID); len(id) == 2 {
			l.vlan = int(binary.NativeEndian.Uint16(id))
		}
	}
	if info.text(nl.IFLA_INFO_SLAVE_KIND) != "bridge" {
		return
	}
	settings := info.get(nl.IFLA_INFO_SLAVE_DATA)
	l.forwarding = bytes.Equal(settings.get(brportState), []byte{stateForwarding})
	l.hairpin = bytes.Equal(settings.get(brportMode), []byte{1})
	l.isolated = bytes.Equal(settings.get(brportIsolated), []byte{1})
}

// newLinkRequest is RTM_NEWLINK about the link called name: with NLM_F_CREATE it
// makes one, of the kind that linkInfo says, without it changes the one that is there.
func newLinkRequest(name string, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, flags)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	return req
}

// linkInfo is IFLA_LINKINFO: a link's kind, and settings that only that kind has.
func linkInfo(kind string, settings ...*nl.RtAttr) *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	if len(settings) > 0 {
		data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
		for _, s := range settings {
			data.AddChild(s)
		}
	}
	return info
}

// portInfo is IFLA_LINKINFO of a port of a bridge: what it may do, by IFLA_BRPORT number.
func portInfo(settings map[int]bool) *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil)
	for setting, on := range settings {
		data.AddRtAttr(setting, nl.Uint8Attr(map[bool]uint8{true: 1}[on]))
	}
	return info
}

// setUp sets the link called name up.
func (b *batch) setUp(name string) { b.setFlag("set "+name+" up", name, unix.IFF_UP, unix.IFF_UP) }

// setFlag sets a flag of the link called name to itself or to 0.
func (b *batch) setFlag(what, name string, flag, value uint32) {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Flags, msg.Change = value, flag
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	b.add(what, req)
}

// setPromiscuous has the link called name take in all frames.
func (n *Namespace) setPromiscuous(name string) error {
	var b batch
	b.setFlag("make "+name+" promiscuous", name, unix.IFF_PROMISC, unix.IFF_PROMISC)
	return n.send(b)
}

// deleteLink deletes the link called name, if there is one. Deleting one end of
// a veth pair deletes both.
func (n *Namespace) deleteLink(name string) error {
	var b batch
	b.delete(name)
	return n.send(b)
}

// delete is deleteLink.
func (b *batch) delete(name string) {
	b.ensure("delete link "+name, deletionRequest(name), unix.ENODEV)
}

// deleteLinks deletes links as deleteLink does, all at once: as a group of their own they
// keep the kernel waiting once, where each by itself would for twenty milliseconds.
func (n *Namespace) deleteLinks(names []string) error {
	if len(names) == 0 {
		return nil
	}
	group := nl.Uint32Attr(rand.Uint32() | 1<<31) // nobody's: people number theirs from 1
	var errs []error
	for some := range slices.Chunk(names, 100) { // their answers wait in the socket, until it is full
		var b batch
		for _, name := range some {
			join := b.ensure("put link "+name+" into a group", newLinkRequest(name, 0), unix.ENODEV)
			join.AddData(nl.NewRtAttr(unix.IFLA_GROUP, group))
		}
		errs = append(errs, n.send(b))
	}
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, 0)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, group))
	var b batch
	b.ensure(fmt.Sprintf("delete %d links", len(names)), req, unix.ENODEV)
	return errors.Join(append(errs, n.send(b))...)
}

func deletionRequest(name string) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, 0)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	return req
}

// randomMAC returns a locally administered unicast address. An explicit address
// is one that udev leaves alone (MACAddressPolicy in systemd.link(5)), and one
// that keeps a bridge from taking that of whichever port comes next.
func randomMAC() net.HardwareAddr {
	mac := binary.BigEndian.AppendUint64(nil, rand.Uint64())[:6]
	mac[0] = mac[0]&^1 | 2
	return mac
}

// digestMAC is such an address that follows from a digest.
func digestMAC(digest [sha256.Size]byte) net.HardwareAddr {
	return append(net.HardwareAddr{0x02}, digest[:5]...)
}

// markOwn marks a bridge or VLAN link that we have just made, which is down, as ours:
// aliases are not applied on creation.
func (b *batch) markOwn(name string) {
	b.add("mark "+name, newLinkRequest(name, 0)).AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(owner)))
	b.silenceIPv6(name)
}

// silenceIPv6 turns off the address that the kernel would generate for the link called
// name, and with it the MLD reports, neighbour and router solicitations that every
// port of the bridge would be flooded with. It must come before the link is set up. A
// link without IPv6, on a kernel without or with an MTU below 1280, has none; a message
// that asks for other things besides would be refused as a whole.
func (b *batch) silenceIPv6(name string) {
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(addrGenModeNone))
	b.ensure("silence IPv6 on "+name, newLinkRequest(name, 0), unix.EAFNOSUPPORT).AddData(spec)
}

// ipNet is a netip.Prefix as the library wants it.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// familyOf returns AF_INET or AF_INET6.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
