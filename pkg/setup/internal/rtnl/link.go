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

const (
	linkNetNSID = 37 // IFLA_LINK_NETNSID in linux/if_link.h: the namespace of a veth's other end

	// TargetNetNSID is IFA_TARGET_NETNSID in linux/if_addr.h, Linux 4.20: the ID of the network
	// namespace whose addresses the kernel lists.
	TargetNetNSID = 10
)

// Attributes and values of links and bridge ports.
const (
	addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE in linux/if_link.h

	// extSkipStats is RTEXT_FILTER_SKIP_STATS in linux/rtnetlink.h. With this flag, the kernel
	// omits the counters, which are half of a message about a link.
	extSkipStats = 1 << 3

	brportState     = 1  // IFLA_BRPORT_STATE in linux/if_link.h
	BrportMode      = 4  // IFLA_BRPORT_MODE: hairpin
	BrportBPDUGuard = 5  // IFLA_BRPORT_GUARD
	BrportIsolated  = 33 // IFLA_BRPORT_ISOLATED, Linux 4.18

	stateDisabled   = 0 // BR_STATE_DISABLED in linux/if_bridge.h
	stateForwarding = 3 // BR_STATE_FORWARDING

	inetConf      = 1  // IFLA_INET_CONF in linux/if_link.h: the values of the IPv4 sysctls of the link, 32 bits each
	inet6Conf     = 2  // IFLA_INET6_CONF: the values of the IPv6 sysctls
	forwarding    = 0  // index of the sysctl forwarding in IFLA_INET_CONF and IFLA_INET6_CONF
	routeLocalnet = 25 // IPV4_DEVCONF_ROUTE_LOCALNET in linux/ip.h, which counts from 1
	acceptRA      = 3  // DEVCONF_ACCEPT_RA in linux/ipv6.h
)

// ErrTaken is returned if a name that we need belongs to another link, or a link that we need
// belongs to another program. That link is unchanged.
var ErrTaken = errors.New("it belongs to another link or program")

// Link is the state of a network interface, as read from the kernel.
type Link struct {
	Index       int
	Name, Alias string
	Own         bool   // we created this bridge or VLAN link (see NewOwnRequest)
	Port        string // the name or alternative name in the form of Attachment.Port; "" if neither has this form
	Kind        string // "bridge", "veth"; "" for a network card
	MAC         net.HardwareAddr
	MTU         int // bytes
	Up          bool
	Running     bool // the link has a carrier, and the kernel has noticed it
	Promiscuous bool
	Forwards4   bool // the host forwards IPv4 packets that arrive by the link
	Forwards6   bool // the host forwards IPv6 packets that arrive by the link
	Localnet    bool // the sysctl route_localnet: packets from and to 127.0.0.0/8 may pass
	AcceptsRA   bool // the host takes addresses and routes from router advertisements
	limited     bool // a token bucket is the root qdisc of the link
	Peer        int  // of a veth: index of the other end, in the namespace of that end; of a VLAN link: index of the link below it

	// PeerNamespace is the ID of the namespace (nsid) that has the veth's other end. It is nil if
	// that end is in the same namespace as the link.
	PeerNamespace []byte

	// The following fields are settings of a bridge port.
	Master     int // index of the bridge; 0 means that the link is not a port
	Forwarding bool
	Disabled   bool // the bridge accepts no frames from the port
	Hairpin    bool
	Isolated   bool
	BPDUGuard  bool // the bridge disables the port if a BPDU arrives on it

	// The following fields are settings of a bridge.
	FiltersVLANs    bool
	DefaultVLAN     int  // the VLAN of untagged frames of new ports; 0 means none
	Snoops          bool // multicast snooping is on: the bridge sends multicast only to members of the group
	LearnsUnlimited bool // the bridge learns any number of MAC addresses, although the kernel supports a limit
	LearnsLinkLocal bool // the bridge learns addresses from frames to 01:80:c2:00:00:0X, although the kernel could prevent it

	VLAN int // the VLAN ID of a VLAN link
}

// ByName returns the link called name. If the link does not exist, Absent returns true for the error.
func ByName(n *netns.Namespace, name string) (Link, error) {
	l, err := lookUp(n, nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if err != nil {
		return l, fmt.Errorf("look up link %s: %w", name, err)
	}
	return l, nil
}

// ByIndex returns the link with this index. If the link does not exist, Absent returns true for the
// error.
func ByIndex(n *netns.Namespace, index int) (Link, error) {
	at := nl.NewIfInfomsg(unix.AF_UNSPEC)
	at.Index = int32(index)
	l, err := lookUp(n, at)
	if err != nil {
		return l, fmt.Errorf("look up link number %d: %w", index, err)
	}
	return l, nil
}

// lookUp returns one link. The parameter "about" identifies it in the request, by its name or index. If
// a later version of bridgeveth has made the link, the error is plan.ErrNewer.
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
	l = ParseLink(messages[0])
	return l, plan.CheckFormat(l.Alias)
}

// Absent reports whether err means that a link does not exist. ERANGE is the kernel's error for a name
// that is too long for a link.
func Absent(err error) bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ERANGE) }

// ParseLink parses an RTM_NEWLINK message.
func ParseLink(m []byte) (l Link) {
	header := nl.DeserializeIfInfomsg(m)
	l.Index = int(header.Index)
	l.Up, l.Running, l.Promiscuous = header.Flags&unix.IFF_UP != 0, header.Flags&unix.IFF_RUNNING != 0, header.Flags&unix.IFF_PROMISC != 0
	attrs := netns.Attrs(m[header.Len():])
	l.Name, l.Alias, l.MAC = attrs.Text(unix.IFLA_IFNAME), attrs.Text(unix.IFLA_IFALIAS), slices.Clone(net.HardwareAddr(attrs.Get(unix.IFLA_ADDRESS)))
	l.Own = l.Alias == plan.Owner || l.Alias == "" && attrs.Integer(unix.IFLA_GROUP) == OwnerMark
	l.MTU, l.Peer, l.Master = attrs.Integer(unix.IFLA_MTU), attrs.Integer(unix.IFLA_LINK), attrs.Integer(unix.IFLA_MASTER)
	l.PeerNamespace = slices.Clone(attrs.Get(linkNetNSID))
	l.limited = attrs.Text(unix.IFLA_QDISC) == "tbf"
	families := attrs.Get(unix.IFLA_AF_SPEC)
	l.Forwards4 = families.In(unix.AF_INET, inetConf).Sysctl(forwarding)
	l.Forwards6 = families.In(unix.AF_INET6, inet6Conf).Sysctl(forwarding)
	l.Localnet = families.In(unix.AF_INET, inetConf).Sysctl(routeLocalnet)
	l.AcceptsRA = families.In(unix.AF_INET6, inet6Conf).Sysctl(acceptRA)
	l.setPort(l.Name)
	attrs.Get(unix.IFLA_PROP_LIST).Each(func(_ uint16, name []byte) { l.setPort(netns.Text(name, len(name))) })
	l.parseInfo(attrs.Get(unix.IFLA_LINKINFO))
	return l
}

// setPort stores a name of the link in l.Port, if the name has the form of a port's name.
func (l *Link) setPort(name string) {
	if plan.IsPort(name) {
		l.Port = name
	}
}

// parseInfo parses IFLA_LINKINFO: the link's kind, its settings, and its settings as a bridge port.
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

// NewLinkRequest returns RTM_NEWLINK for the link called name. With NLM_F_CREATE, the request
// creates a link of the kind that the caller adds with LinkInfo. Without NLM_F_CREATE, the request
// changes an existing link.
func NewLinkRequest(name string, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, flags)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	return req
}

// NewOwnRequest returns RTM_NEWLINK that creates a bridge or VLAN link of ours. The caller adds
// LinkInfo. The new link has OwnerMark as its group, so Link.Own is true even if the process is
// killed before MarkOwn sets the alias. A request that creates a link cannot set the alias, because
// the kernel ignores the alias in such a request.
func NewOwnRequest(name string) *nl.NetlinkRequest {
	req := NewLinkRequest(name, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(OwnerMark)))
	return req
}

// LinkInfo returns IFLA_LINKINFO with a link's kind and with settings of that kind.
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

// PortInfo returns IFLA_LINKINFO with settings of a bridge port. The keys of the map are the
// kernel's numbers of the settings (IFLA_BRPORT_*).
func PortInfo(settings map[int]bool) *nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil)
	for setting, on := range settings {
		data.AddRtAttr(setting, nl.Uint8Attr(map[bool]uint8{true: 1}[on]))
	}
	return info
}

// SetUp adds to the batch a request that sets the link called name up.
func SetUp(b *netns.Batch, name string) {
	setFlag(b, "set "+name+" up", name, unix.IFF_UP, unix.IFF_UP)
}

// SetDown adds to the batch a request that sets the link called name down.
func SetDown(b *netns.Batch, name string) {
	setFlag(b, "set "+name+" down", name, unix.IFF_UP, 0)
}

// setFlag adds to the batch a request that sets or clears a flag (IFF_*) of the link called name.
// value equals flag to set the flag, and 0 to clear it.
func setFlag(b *netns.Batch, what, name string, flag, value uint32) {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Flags, msg.Change = value, flag
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	b.Add(what, req)
}

// SetPromiscuous puts the link called name into promiscuous mode.
func SetPromiscuous(n *netns.Namespace, name string) error {
	var b netns.Batch
	setFlag(&b, "make "+name+" promiscuous", name, unix.IFF_PROMISC, unix.IFF_PROMISC)
	return n.Send(b)
}

// DeleteLink deletes a link if it still exists. It identifies the link by its index, so it does not
// delete a newer link of the same name. Deleting one end of a veth pair deletes both ends.
func DeleteLink(n *netns.Namespace, l Link) error {
	var b netns.Batch
	b.Ensure("delete link "+l.Name, DeletionRequest(l), unix.ENODEV)
	return n.Send(b)
}

// Delete adds to the batch a request that deletes the link called name. If the link does not exist,
// this counts as success.
func Delete(b *netns.Batch, name string) {
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, 0)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	b.Ensure("delete link "+name, req, unix.ENODEV)
}

// DeleteLinks deletes links as DeleteLink does. It puts the links into a group and deletes the
// group in one request, because the kernel then waits once, instead of about 20 ms for each link.
func DeleteLinks(n *netns.Namespace, links []Link) error {
	if len(links) == 0 {
		return nil
	}
	group := nl.Uint32Attr(rand.Uint32() | 1<<31) // a high random number, because groups of other programs have low numbers
	var errs []error
	for some := range slices.Chunk(links, 100) { // the receive buffer of a socket has no room for the answers to more requests
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

// DeletionRequest returns RTM_DELLINK for a link, by its index.
func DeletionRequest(l Link) *nl.NetlinkRequest { return aboutLink(unix.RTM_DELLINK, l) }

// ChangeRequest returns RTM_NEWLINK for a link. It identifies the link by its index, because a new
// link may have the same name.
func ChangeRequest(l Link) *nl.NetlinkRequest { return aboutLink(unix.RTM_NEWLINK, l) }

func aboutLink(verb int, l Link) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(verb, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(l.Index)
	req.AddData(msg)
	return req
}

// RandomMAC returns a random, locally administered unicast MAC address. A bridge or veth with an
// explicit MAC address keeps it: udev does not change it (MACAddressPolicy in systemd.link(5)), and
// a bridge does not take the address of a port.
func RandomMAC() net.HardwareAddr {
	mac := binary.BigEndian.AppendUint64(nil, rand.Uint64())[:6]
	mac[0] = mac[0]&^1 | 2
	return mac
}

// MarkOwn adds two requests to the batch. The first sets the alias that marks a bridge or VLAN link as
// ours. The second stops the kernel from generating IPv6 addresses for the link. The link must be
// down, because the kernel generates an address when the link goes up.
func MarkOwn(b *netns.Batch, name string) {
	b.Add("mark "+name, NewLinkRequest(name, 0)).AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(plan.Owner)))
	DisableGeneratedIPv6(b, name)
}

// DisableGeneratedIPv6 stops the kernel from generating a link-local IPv6 address for the link
// called name. Such an address causes multicast reports and solicitations, which the bridge floods
// to all ports. Call DisableGeneratedIPv6 before the link is set up.
//
// This change has its own request: for a link without IPv6, the kernel refuses the whole request. A
// link has no IPv6 if the kernel has no IPv6, or if the MTU of the link is below 1280.
func DisableGeneratedIPv6(b *netns.Batch, name string) {
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(addrGenModeNone))
	b.Ensure("disable generated IPv6 addresses on "+name, NewLinkRequest(name, 0), unix.EAFNOSUPPORT).AddData(spec)
}

// carrierWait is the longest time that AwaitCarrier waits. carrierPause is the time between two of
// its look-ups. AwaitCarrier must wait because the kernel processes carrier changes in a work
// queue, some time after both ends of a veth pair are up (net/core/link_watch.c).
const (
	carrierWait  = 2 * time.Second
	carrierPause = 200 * time.Microsecond
)

// AwaitCarrier repeatedly looks up the link called name, and returns when the function ready accepts
// the link. The function ready must check for a state that the kernel sets after it has noticed the
// carrier. From Linux 6.9 on, each look-up makes the kernel process pending carrier changes of the
// link (rtnl_getlink in net/core/rtnetlink.c).
func AwaitCarrier(n *netns.Namespace, name string, ready func(Link) bool) error {
	for start := time.Now(); ; time.Sleep(carrierPause) {
		l, err := ByName(n, name)
		if err != nil || ready(l) {
			return err
		}
		if time.Since(start) > carrierWait {
			return fmt.Errorf("after %s it has no carrier: %w", carrierWait, os.ErrDeadlineExceeded)
		}
	}
}

// Ours reports whether a link is one of our ports. It also recognizes a port by its name alone,
// because a killed process may have left a port without an alias.
func (l Link) Ours() bool {
	_, ok := plan.ParseAttachment(l.Alias)
	return ok || plan.CheckFormat(l.Alias) != nil || l.Alias == "" && plan.IsPort(l.Name)
}

// Attributes of VLAN links and of bridges with VLAN filtering.
const (
	VLANID           = 1 // IFLA_VLAN_ID in linux/if_link.h
	BridgeVLANFilter = 7 // IFLA_BR_VLAN_FILTERING
)
