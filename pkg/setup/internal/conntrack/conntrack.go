package conntrack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
)

// Attributes that package nl lacks: enum ctattr_type and enum ctattr_filter in
// linux/netfilter/nfnetlink_conntrack.h.
const (
	ctaFilter      = 25 // CTA_FILTER
	ctaOrigFlags   = 1  // CTA_FILTER_ORIG_FLAGS
	ctaReplyFlags  = 2  // CTA_FILTER_REPLY_FLAGS
	ctaZone        = 18 // CTA_ZONE
	ctaStatus      = 3  // CTA_STATUS
	statusOffload  = 1 << 14
	filterSource   = 1 << 0 // CTA_FILTER_F_CTA_IP_SRC in net/netfilter/nf_internals.h
	filterTarget   = 1 << 1 // CTA_FILTER_F_CTA_IP_DST
	filterProtocol = 1 << 3 // CTA_FILTER_F_CTA_PROTO_NUM
	filterPort     = 1 << 5 // CTA_FILTER_F_CTA_PROTO_DST_PORT
)

// Filter selects connections by the packets of one direction: the original packets, or the replies.
type Filter struct {
	Family      int        // AF_INET, AF_INET6
	Reply       bool       // the fields describe the reply packets
	Source      netip.Addr // of the packets; the zero Addr matches every address
	Destination netip.Addr
	Protocol    uint8  // IPPROTO_*; 0 matches every protocol
	Port        uint16 // destination port; 0 matches every port
}

// from returns two filters. Together they select the connections in which an address sends packets,
// as the client or as the server. The filter for the server compares the reply packets: their
// source is the server's own address, even if the client sends to a translated address (DNAT).
func from(address netip.Addr) []Filter {
	f := Filter{Family: netns.FamilyOf(address), Source: address}
	reply := f
	reply.Reply = true
	return []Filter{f, reply}
}

// Forget deletes the conntrack entries of connections from or to these addresses. A flowtable
// ignores the flow of a deleted connection (flow_offload_lookup in
// net/netfilter/nf_flow_table_core.c), so no packet of an old connection reaches the next container
// with the same address.
func Forget(n *netns.Namespace, addresses []netip.Prefix) error {
	var filters []Filter
	for _, a := range addresses {
		filters = append(filters, from(a.Addr())...)
	}
	return Delete(n, filters...)
}

// fewFilters is the greatest number of filters that Delete sends to the kernel. The kernel reads
// its whole table for each filter. With more filters, Delete requests the whole table once and
// compares the connections with the filters itself.
const fewFilters = 4

// Delete deletes the connections that match at least one of the filters. With up to fewFilters
// filters, the kernel returns only connections that match a filter (Linux 5.8), but must read its
// whole table for each filter. With more filters, the kernel returns all connections once, and
// Delete compares them with the filters.
func Delete(n *netns.Namespace, filters ...Filter) error {
	var found []connection
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		mine := slices.DeleteFunc(slices.Clone(filters), func(f Filter) bool { return f.Family != family })
		if len(mine) > fewFilters {
			all, err := list(n, Filter{Family: family})
			if err != nil {
				return err
			}
			for _, c := range all {
				if slices.ContainsFunc(mine, func(f Filter) bool { return f.matches(c.Attrs) }) {
					found = append(found, c)
				}
			}
			continue
		}
		for _, f := range mine {
			some, err := list(n, f)
			if err != nil {
				return err
			}
			found = append(found, some...)
		}
	}
	var b netns.Batch
	for _, c := range found {
		req := request(nl.IPCTNL_MSG_CT_DELETE, 0, c.family)
		for _, kind := range []uint16{nl.CTA_TUPLE_ORIG | unix.NLA_F_NESTED, ctaZone, nl.CTA_ID} {
			if value := c.Get(kind &^ unix.NLA_F_NESTED); value != nil {
				req.AddData(nl.NewRtAttr(int(kind), value))
			}
		}
		b.Ensure("delete a connection from conntrack", req, unix.ENOENT) // the connection may have ended meanwhile
	}
	return n.Exchange(unix.NETLINK_NETFILTER, b, nil, nil)
}

// connection is an entry of conntrack: its attributes (CTA_*).
type connection struct {
	family int
	netns.Attrs
}

// list returns the connections that match a filter.
func list(n *netns.Namespace, f Filter) ([]connection, error) {
	req := request(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, f.Family)
	if tuple, flags := f.tuple(); flags != 0 {
		filter := nl.NewRtAttr(ctaFilter|unix.NLA_F_NESTED, nil)
		filter.AddRtAttr(map[bool]int{false: ctaOrigFlags, true: ctaReplyFlags}[f.Reply], nl.Uint32Attr(flags))
		req.AddData(tuple)
		req.AddData(filter)
	}
	found, err := netns.Dump(func() (found []connection, err error) {
		err = n.Each(unix.NETLINK_NETFILTER, req, func(data []byte) bool {
			if entry := netns.Attrs(data[nl.SizeofNfgenmsg:]); f.matches(entry) {
				found = append(found, connection{f.Family, slices.Clone(entry)})
			}
			return true
		})
		return found, err
	})
	if err != nil {
		return nil, fmt.Errorf("read conntrack: %w", err)
	}
	return found, nil
}

// direction returns the attribute that holds the addresses and ports of the packets that the filter
// describes.
func (f Filter) direction() uint16 {
	if f.Reply {
		return nl.CTA_TUPLE_REPLY
	}
	return nl.CTA_TUPLE_ORIG
}

// addressKinds returns the attributes of the source and of the destination in a tuple.
func (f Filter) addressKinds() (source, destination uint16) {
	if f.Family == unix.AF_INET6 {
		return nl.CTA_IP_V6_SRC, nl.CTA_IP_V6_DST
	}
	return nl.CTA_IP_V4_SRC, nl.CTA_IP_V4_DST
}

// tuple returns the addresses, protocol and port of the filter as a conntrack tuple. The result
// flags tells the kernel which of these fields to compare.
func (f Filter) tuple() (tuple *nl.RtAttr, flags uint32) {
	tuple = nl.NewRtAttr(int(f.direction())|unix.NLA_F_NESTED, nil)
	source, destination := f.addressKinds()
	if f.Source.IsValid() || f.Destination.IsValid() {
		ip := tuple.AddRtAttr(nl.CTA_TUPLE_IP|unix.NLA_F_NESTED, nil)
		if f.Source.IsValid() {
			ip.AddRtAttr(int(source), f.Source.AsSlice())
			flags |= filterSource
		}
		if f.Destination.IsValid() {
			ip.AddRtAttr(int(destination), f.Destination.AsSlice())
			flags |= filterTarget
		}
	}
	if f.Protocol != 0 {
		proto := tuple.AddRtAttr(nl.CTA_TUPLE_PROTO|unix.NLA_F_NESTED, nil)
		proto.AddRtAttr(nl.CTA_PROTO_NUM, []byte{f.Protocol})
		flags |= filterProtocol
		if f.Port != 0 {
			proto.AddRtAttr(nl.CTA_PROTO_DST_PORT, binary.BigEndian.AppendUint16(nil, f.Port))
			flags |= filterPort
		}
	}
	return tuple, flags
}

// matches reports whether a connection matches the filter. The kernel may return other connections,
// because kernels before Linux 5.8 ignore filters, and because Delete requests all connections if
// it has more than fewFilters filters.
func (f Filter) matches(entry netns.Attrs) bool {
	tuple := entry.Get(f.direction())
	source, destination := f.addressKinds()
	proto := tuple.Get(nl.CTA_TUPLE_PROTO)
	return (!f.Source.IsValid() || bytes.Equal(tuple.In(nl.CTA_TUPLE_IP, source), f.Source.AsSlice())) &&
		(!f.Destination.IsValid() || bytes.Equal(tuple.In(nl.CTA_TUPLE_IP, destination), f.Destination.AsSlice())) &&
		(f.Protocol == 0 || bytes.Equal(proto.Get(nl.CTA_PROTO_NUM), []byte{f.Protocol})) &&
		(f.Port == 0 || bytes.Equal(proto.Get(nl.CTA_PROTO_DST_PORT), binary.BigEndian.AppendUint16(nil, f.Port)))
}

// Offloaded returns the number of connections from or to an address that are offloaded, which means
// that a flowtable forwards their packets.
func Offloaded(n *netns.Namespace, address netip.Addr) (count int, err error) {
	for _, f := range from(address) {
		found, err := list(n, f)
		if err != nil {
			return 0, err
		}
		for _, c := range found {
			if c.Number(ctaStatus)&statusOffload != 0 {
				count++
			}
		}
	}
	return count, nil
}

// request returns a request to conntrack. message is IPCTNL_MSG_CT_*.
func request(message, flags, family int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(int(netlink.ConntrackTable)<<8|message, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(family), Version: nl.NFNETLINK_V0})
	return req
}
