package rtnl

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// Metrics of routes in linux/rtnetlink.h.
const (
	rtaxMTU    = 2 // RTAX_MTU
	rtaxAdvMSS = 8 // RTAX_ADVMSS
)

// addRoute adds a route through a link. It keeps other routes to the same destination, for example
// the default route of another network. IPv4 then prefers the new route (fib_table_insert in
// net/ipv4/fib_trie.c). IPv6 distributes flows over both routes (fib6_add_rt2node in
// net/ipv6/ip6_fib.c). The error is EEXIST if an equal route exists. If there is no route to the
// gateway, the error is ENETUNREACH for IPv4 and EHOSTUNREACH for IPv6.
func addRoute(b *netns.Batch, l Link, r plan.Route) {
	b.Add("add route "+r.String(), RouteRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, l, r, unix.RTPROT_BOOT))
}

// RouteRequest returns a request about a route through a link. protocol (RTPROT_*) identifies the
// program that added the route.
func RouteRequest(verb, flags int, l Link, r plan.Route, protocol uint8) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(verb, flags)
	msg := nl.NewRtMsg() // for a unicast route in the main table
	msg.Protocol = protocol
	msg.Family = uint8(netns.FamilyOf(r.Destination.Addr()))
	msg.Dst_len = uint8(r.Destination.Bits())
	msg.Scope = unix.RT_SCOPE_LINK
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.RTA_DST, r.Destination.Addr().AsSlice()))
	req.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(l.Index))))
	if r.Gateway.IsValid() {
		msg.Scope = unix.RT_SCOPE_UNIVERSE
		req.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, r.Gateway.AsSlice()))
	}
	if r.Scope != nil {
		msg.Scope = uint8(*r.Scope)
	}
	if r.Table != nil {
		msg.Table = unix.RT_TABLE_UNSPEC
		req.AddData(nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(uint32(*r.Table))))
	}
	if r.Priority != 0 {
		req.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(uint32(r.Priority))))
	}
	if r.MTU != 0 || r.AdvMSS != 0 {
		metrics := nl.NewRtAttr(unix.RTA_METRICS, nil)
		for metric, value := range map[int]int{rtaxMTU: r.MTU, rtaxAdvMSS: r.AdvMSS} {
			if value != 0 {
				metrics.AddRtAttr(metric, nl.Uint32Attr(uint32(value)))
			}
		}
		req.AddData(metrics)
	}
	return req
}

// UplinkMTU returns the lowest MTU, in bytes, of the links that have a default route of either
// family. It returns 0 for a host without default routes.
func UplinkMTU(n *netns.Namespace) (mtu int, err error) {
	library, err := n.Library()
	if err != nil {
		return 0, err
	}
	for _, everywhere := range []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")} {
		routes, err := netns.Dump(func() ([]netlink.Route, error) {
			want := &netlink.Route{Dst: netns.IPNet(everywhere), Table: unix.RT_TABLE_MAIN}
			return library.RouteListFiltered(netns.FamilyOf(everywhere.Addr()), want, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return 0, fmt.Errorf("list default routes: %w", err)
		}
		links, err := linksOf(n, routes)
		if err != nil {
			return 0, err
		}
		for _, l := range links {
			if mtu == 0 || l.MTU < mtu {
				mtu = l.MTU
			}
		}
	}
	return mtu, nil
}

// Uplinks returns the names of the links that the routes of the main table use. It ignores routes to a
// single address and to link-local addresses: other plugins create such routes for links to their
// containers.
func Uplinks(n *netns.Namespace, family int) (names []string, err error) {
	library, err := n.Library()
	if err != nil {
		return nil, err
	}
	routes, err := netns.Dump(func() ([]netlink.Route, error) {
		return library.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	links, err := linksOf(n, slices.DeleteFunc(routes, func(r netlink.Route) bool {
		ones, bits := r.Dst.Mask.Size()
		return r.Type != unix.RTN_UNICAST || ones == bits || r.Dst.IP.IsLinkLocalUnicast()
	}))
	for _, l := range links {
		names = append(names, l.Name)
	}
	return names, err
}

// linksOf returns the links through which the routes lead. It returns each link once.
func linksOf(n *netns.Namespace, routes []netlink.Route) (links []Link, err error) {
	var indices []int
	for _, r := range routes {
		indices = append(indices, r.LinkIndex)
		for _, hop := range r.MultiPath {
			indices = append(indices, hop.LinkIndex)
		}
	}
	slices.Sort(indices)
	for _, index := range slices.Compact(indices) {
		l, err := ByIndex(n, index)
		if index == 0 || Absent(err) {
			continue // a route with several next hops has no link of its own; or the link was deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		links = append(links, l)
	}
	return links, nil
}

// AbsentRoutes returns the routes of the list for which the kernel has no equal route through link l.
// It searches all tables, because later plugins in the chain may move routes to other tables, as the
// plugin sbr does.
func AbsentRoutes(n *netns.Namespace, l Link, routes []plan.Route) (absent []plan.Route, err error) {
	present := map[int][]hop{} // by family
	for _, r := range routes {
		family := netns.FamilyOf(r.Destination.Addr())
		if _, read := present[family]; !read {
			if present[family], err = hops(n, family); err != nil {
				return nil, fmt.Errorf("list routes: %w", err)
			}
		}
		if !slices.Contains(present[family], hop{r.Destination.Masked(), r.Gateway, l.Index}) {
			absent = append(absent, r)
		}
	}
	return absent, nil
}

// hop is one next hop of a route, with the destination of the route.
type hop struct {
	destination netip.Prefix
	gateway     netip.Addr // the zero Addr if the destination is on the link
	link        int        // index
}

// hops returns the next hops of all routes of a family, in all tables.
func hops(n *netns.Namespace, family int) (all []hop, err error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	req.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(family)}})
	messages, err := netns.Dump(func() ([][]byte, error) { return n.Ask(unix.NETLINK_ROUTE, req) })
	for _, m := range messages {
		if len(m) < unix.SizeofRtMsg {
			continue
		}
		attrs := netns.Attrs(m[unix.SizeofRtMsg:])
		to, ok := netip.AddrFromSlice(attrs.Get(unix.RTA_DST))
		if !ok { // a default route
			to = map[int]netip.Addr{unix.AF_INET: netip.IPv4Unspecified(), unix.AF_INET6: netip.IPv6Unspecified()}[family]
		}
		destination := netip.PrefixFrom(to, int(nl.DeserializeRtMsg(m).Dst_len))
		add := func(link int, attrs netns.Attrs) {
			gateway, _ := netip.AddrFromSlice(attrs.Get(unix.RTA_GATEWAY))
			all = append(all, hop{destination, gateway, link})
		}
		add(attrs.Integer(unix.RTA_OIF), attrs)
		// The kernel lists several IPv6 routes to one destination as one route with several next hops,
		// each of which begins with struct rtnexthop.
		for several := attrs.Get(unix.RTA_MULTIPATH); len(several) >= unix.SizeofRtNexthop; {
			size := int(binary.NativeEndian.Uint16(several))
			if size < unix.SizeofRtNexthop || size > len(several) {
				break
			}
			add(int(binary.NativeEndian.Uint32(several[4:])), several[unix.SizeofRtNexthop:size])
			several = several[min(len(several), (size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1)):]
		}
	}
	return all, err
}
