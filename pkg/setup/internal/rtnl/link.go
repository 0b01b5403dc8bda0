package rtnl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// Attributes that tell in which namespace something is.
const (
	linkNetNSID   = 37 // IFLA_LINK_NETNSID in linux/if_link.h: in which namespace a veth's other end is
	TargetNetNSID = 10 // IFA_TARGET_NETNSID in linux/if_addr.h: in which namespace addresses are (Linux 4.20)
)

// Attributes of links and of ports of a bridge.
const (
	addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE in linux/if_link.h

	// extSkipStats is RTEXT_FILTER_SKIP_STATS in linux/rtnetlink.h: half of what
	// the kernel says about a link is counters.
	extSkipStats = 1 << 3

	brportState     = 1  // IFLA_BRPORT_STATE in linux/if_link.h
	BrportMode      = 4  // IFLA_BRPORT_MODE: hairpin
	BrportBPDUGuard = 5  // IFLA_BRPORT_GUARD
	BrportIsolated  = 33 // IFLA_BRPORT_ISOLATED, Linux 4.18

	stateDisabled   = 0 // BR_STATE_DISABLED in linux/if_bridge.h
	stateForwarding = 3 // BR_STATE_FORWARDING

	inetConf      = 1  // IFLA_INET_CONF in linux/if_link.h: IPv4's sysctls of the link, 32 bits each
	forwarding    = 0  // where IPV4_DEVCONF_FORWARDING, and DEVCONF_FORWARDING, is among them
	routeLocalnet = 25 // where IPV4_DEVCONF_ROUTE_LOCALNET in linux/ip.h, which counts from 1, is among them
	inet6Conf     = 2  // IFLA_INET6_CONF: IPv6's
	acceptRA      = 3  // DEVCONF_ACCEPT_RA in linux/ipv6.h
)

// ErrTaken says that a name belongs to something else, which is left alone.
var ErrTaken = errors.New("it belongs to something else")

// Link is what we need to know of a network interface.
type Link struct {
	Index       int
	Name, Alias string
	Port        string // the name by which it is a port of ours: its own or an alternative one; "" is none
	Kind        string // "bridge", "veth"; "" for the likes of a network card
	MAC         net.HardwareAddr
	MTU         int // bytes
	Up          bool
	Running     bool // it has a carrier, and the kernel has seen it
	Promiscuous bool
	Forwards4   bool // the host routes IPv4 that comes by it
	Forwards6   bool // and IPv6
	Localnet    bool // 127.0.0.0/8 may come and go by it: route_localnet
	AcceptsRA   bool // routers on it give the host addresses and routes
	limited     bool // what leaves by it goes through a token bucket, whoever made it
	Peer        int  // index of a veth's other end, in its namespace; of what a VLAN link is on
	// peerNamespace numbers the namespace of peer, as the kernel has it; none where that is ours.
	PeerNamespace []byte
	Master        int  // index of the bridge that it is a port of; 0 is none
	Forwarding    bool // as a port of a bridge
	Disabled      bool // as a port of a bridge: it takes no frame
	Hairpin       bool // as a port of a bridge
	Isolated      bool // as a port of a bridge
	BPDUGuard     bool // as a port of a bridge: a BPDU that comes by it disables it

	FiltersVLANs bool // as a bridge
	DefaultVLAN  int  // as a bridge: that its new ports are in, without a tag; 0 is none
	Snoops       bool // as a bridge: what is sent to a multicast group goes to its members only
	VLAN         int  // as a VLAN link, on the link of index peer

	LearnsUnlimited bool // as a bridge: any number of MAC addresses, on a kernel that could limit it
	LearnsLinkLocal bool // as a bridge: also from frames to 01:80:c2:00:00:0X, on a kernel that could stop it
}

// ByName looks up the link called name; absent tells of an error whether there is
// none.
func ByName(n *netns.Namespace, name string) (Link, error) {
	l, err := lookUp(n, nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if err != nil {
		return l, fmt.Errorf("look up link %s: %w", name, err)
	}
	return l, nil
}

// ByIndex is link by index.
func ByIndex(n *netns.Namespace, index int) (Link, error) {
	at := nl.NewIfInfomsg(unix.AF_UNSPEC)
	at.Index = int32(index)
	l, err := lookUp(n, at)
	if err != nil {
		return l, fmt.Errorf("look up link number %d: %w", index, err)
	}
	return l, nil
}

// lookUp looks up the one link that a message is about.
func lookUp(n *netns.Namespace, about ...nl.NetlinkRequestData) (l Link, err error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	for _, data := range about {
		req.AddData(data)
	}
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(extSkipStats)))
	messages, err := n.Ask(unix.NETLINK_ROUTE, req)
	if err == nil && len(messages) != 1 {
		err = fmt.Errorf("got %d answers", len(messages))
	}
	if err != nil {
		return l, err
	}
	return ParseLink(messages[0]), nil
}

// Absent says whether err is that of a link that does not exist, or cannot: by a name that is
// too long.
func Absent(err error) bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ERANGE) }

// ParseLink reads an RTM_NEWLINK message.
func ParseLink(m []byte) (l Link) {
	header := nl.DeserializeIfInfomsg(m)
	l.Index = int(header.Index)
	l.Up, l.Running, l.Promiscuous = header.Flags&unix.IFF_UP != 0, header.Flags&unix.IFF_RUNNING != 0, header.Flags&unix.IFF_PROMISC != 0
	is := netns.Attrs(m[header.Len():])
	l.Name, l.Alias, l.MAC = is.Text(unix.IFLA_IFNAME), is.Text(unix.IFLA_IFALIAS), slices.Clone(net.HardwareAddr(is.Get(unix.IFLA_ADDRESS)))
	l.MTU, l.Peer, l.Master = is.Integer(unix.IFLA_MTU), is.Integer(unix.IFLA_LINK), is.Integer(unix.IFLA_MASTER)
	l.PeerNamespace = slices.Clone(is.Get(linkNetNSID))
	l.limited = is.Text(unix.IFLA_QDISC) == "tbf"
	families := is.Get(unix.IFLA_AF_SPEC)
	l.Forwards4 = families.In(unix.AF_INET, inetConf).Sysctl(forwarding)
	l.Forwards6 = families.In(unix.AF_INET6, inet6Conf).Sysctl(forwarding)
	l.Localnet = families.In(unix.AF_INET, inetConf).Sysctl(routeLocalnet)
	l.AcceptsRA = families.In(unix.AF_INET6, inet6Conf).Sysctl(acceptRA)
	l.mayBePort(l.Name)
	is.Get(unix.IFLA_PROP_LIST).Each(func(_ uint16, name []byte) { l.mayBePort(netns.Text(name, len(name))) })
	l.parseInfo(is.Get(unix.IFLA_LINKINFO))
	return l
}

func (l *Link) mayBePort(name string) {
	if plan.IsPort(name) {
		l.Port = name
	}
}

// parseInfo reads IFLA_LINKINFO: the link's kind, and what its bridge says of it.
func (l *Link) parseInfo(info netns.Attrs) {
	l.Kind = info.Text(nl.IFLA_INFO_KIND)
	data := info.Get(nl.IFLA_INFO_DATA)
	switch l.Kind {
	case "bridge":
		l.FiltersVLANs = bytes.Equal(data.Get(BridgeVLANFilter), []byte{1})
		if id := data.Get(nl.IFLA_BR_VLAN_DEFAULT_PVID); len(id) == 2 {
			l.DefaultVLAN = int(binary.NativeEndian.Uint16(id))
		}
		l.Snoops = bytes.Equal(data.Get(nl.IFLA_BR_MCAST_SNOOPING), []byte{1})
		l.parseLearning(data)
	case "vlan":
		if id := data.Get(VLANID); len(id) == 2 {
			l.VLAN = int(binary.NativeEndian.Uint16(id))
		}
	}
	if info.Text(nl.IFLA_INFO_SLAVE_KIND) != "bridge" {
		return
	}
	settings := info.Get(nl.IFLA_INFO_SLAVE_DATA)
	l.Forwarding = bytes.Equal(settings.Get(brportState), []byte{stateForwarding})
	l.Disabled = bytes.Equal(settings.Get(brportState), []byte{stateDisabled})
	l.Hairpin = bytes.Equal(settings.Get(BrportMode), []byte{1})
	l.Isolated = bytes.Equal(settings.Get(BrportIsolated), []byte{1})
	l.BPDUGuard = bytes.Equal(settings.Get(BrportBPDUGuard), []byte{1})
}

// NewLinkRequest is RTM_NEWLINK about the link called name: with NLM_F_CREATE it
// makes one, of the kind that linkInfo says, without it changes the one that is there.
func NewLinkRequest(name string, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, flags)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	return req
}

// LinkInfo is IFLA_LINKINFO: a link's kind, and settings that only that kind has.
func LinkInfo(kind string, settings ...*nl.RtAttr) *nl.RtAttr {
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

// ChangeBridge changes settings of the bridge called name.
func ChangeBridge(n *netns.Namespace, name string, settings ...*nl.RtAttr) error {
	var b netns.Batch
	b.Add("configure bridge "+name, NewLinkRequest(name, 0)).AddData(LinkInfo("bridge", settings...))
	return n.Send(b)
}

// PortInfo is IFLA_LINKINFO of a port of a bridge: what it may do, by IFLA_BRPORT number.
func PortInfo(settings map[int]bool) *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil)
	for setting, on := range settings {
		data.AddRtAttr(setting, nl.Uint8Attr(map[bool]uint8{true: 1}[on]))
	}
	return info
}

// SetUp sets the link called name up.
func SetUp(b *netns.Batch, name string) {
	setFlag(b, "set "+name+" up", name, unix.IFF_UP, unix.IFF_UP)
}

// SetDown sets the link called name down.
func SetDown(b *netns.Batch, name string) {
	setFlag(b, "set "+name+" down", name, unix.IFF_UP, 0)
}

// setFlag sets a flag of the link called name to itself or to 0.
func setFlag(b *netns.Batch, what, name string, flag, value uint32) {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Flags, msg.Change = value, flag
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	b.Add(what, req)
}

// SetPromiscuous has the link called name take in all frames.
func SetPromiscuous(n *netns.Namespace, name string) error {
	var b netns.Batch
	setFlag(&b, "make "+name+" promiscuous", name, unix.IFF_PROMISC, unix.IFF_PROMISC)
	return n.Send(b)
}

// DeleteLink deletes a link, if it still exists. It leaves alone a link that somebody else has made
// since under the same name. Deleting one end of a veth pair deletes both.
func DeleteLink(n *netns.Namespace, l Link) error {
	var b netns.Batch
	b.Ensure("delete link "+l.Name, deletionRequest(l), unix.ENODEV)
	return n.Send(b)
}

// Delete adds to the batch the deletion of the link called name. A link that does not exist is no
// error.
func Delete(b *netns.Batch, name string) {
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, 0)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	b.Ensure("delete link "+name, req, unix.ENODEV)
}

// DeleteLinks deletes links as DeleteLink does, in one request about a group of links. The kernel
// waits once for the group, instead of some 20 ms for each link.
func DeleteLinks(n *netns.Namespace, links []Link) error {
	if len(links) == 0 {
		return nil
	}
	group := nl.Uint32Attr(rand.Uint32() | 1<<31) // nobody's: people number theirs from 1
	var errs []error
	for some := range slices.Chunk(links, 100) { // their answers wait in the socket, until it is full
		var b netns.Batch
		for _, l := range some {
			join := b.Ensure("put link "+l.Name+" into a group", ChangeRequest(l), unix.ENODEV)
			join.AddData(nl.NewRtAttr(unix.IFLA_GROUP, group))
		}
		errs = append(errs, n.Send(b))
	}
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, 0)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, group))
	var b netns.Batch
	b.Ensure(fmt.Sprintf("delete %d links", len(links)), req, unix.ENODEV)
	return errors.Join(append(errs, n.Send(b))...)
}

// deletionRequest returns RTM_DELLINK about a link, by its index.
func deletionRequest(l Link) *nl.NetlinkRequest { return aboutLink(unix.RTM_DELLINK, l) }

// ChangeRequest returns RTM_NEWLINK about a link, by its index: another link may have the name by now.
func ChangeRequest(l Link) *nl.NetlinkRequest { return aboutLink(unix.RTM_NEWLINK, l) }

func aboutLink(verb int, l Link) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(verb, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(l.Index)
	req.AddData(msg)
	return req
}

// RandomMAC returns a locally administered unicast address. An explicit address
// is one that udev leaves alone (MACAddressPolicy in systemd.link(5)), and one
// that keeps a bridge from taking that of whichever port comes next.
func RandomMAC() net.HardwareAddr {
	mac := binary.BigEndian.AppendUint64(nil, rand.Uint64())[:6]
	mac[0] = mac[0]&^1 | 2
	return mac
}

// MarkOwn marks a bridge or VLAN link that we have just made, which is down, as ours:
// aliases are not applied on creation.
func MarkOwn(b *netns.Batch, name string) {
	b.Add("mark "+name, NewLinkRequest(name, 0)).AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(plan.Owner)))
	DisableGeneratedIPv6(b, name)
}

// DisableGeneratedIPv6 turns off the address that the kernel would generate for the link called
// name, and with it the MLD reports, neighbour and router solicitations that every
// port of the bridge would be flooded with. It must come before the link is set up. A
// link without IPv6, on a kernel without or with an MTU below 1280, has none; a message
// that asks for other things besides would be refused as a whole.
func DisableGeneratedIPv6(b *netns.Batch, name string) {
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(addrGenModeNone))
	b.Ensure("silence IPv6 on "+name, NewLinkRequest(name, 0), unix.EAFNOSUPPORT).AddData(spec)
}

// A port may take portWait to forward, once both its ends are up: the kernel sees
// the carrier in a work queue of its own (net/core/link_watch.c).
const (
	portWait  = 2 * time.Second
	portPause = 200 * time.Microsecond
)

// AwaitCarrier waits until a link is as it is once the kernel has seen its carrier. Since
// Linux 6.9 asking makes it look (rtnl_getlink in net/core/rtnetlink.c).
func AwaitCarrier(n *netns.Namespace, name string, ready func(Link) bool) error {
	for start := time.Now(); ; time.Sleep(portPause) {
		l, err := ByName(n, name)
		if err != nil || ready(l) {
			return err
		}
		if time.Since(start) > portWait {
			return fmt.Errorf("after %s it has no carrier: %w", portWait, os.ErrDeadlineExceeded)
		}
	}
}

// Ours says whether we made a port. One without our alias is half made, by a
// process that was killed; its name gives it away.
func (l Link) Ours() bool {
	_, ok := plan.ParseAttachment(l.Alias)
	return ok || l.Alias == "" && plan.IsPort(l.Name)
}

// Attributes of VLAN links and of bridges that filter by VLAN.
const (
	VLANID           = 1 // IFLA_VLAN_ID in linux/if_link.h
	BridgeVLANFilter = 7 // IFLA_BR_VLAN_FILTERING
)
