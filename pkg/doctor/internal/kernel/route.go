package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Route is the route that the kernel chose for a packet.
type Route struct {
	Gateway netip.Addr // not valid if the destination is on the link
	Link    string     // "" if the packet leaves by no link
	Table   int
	Type    string // "blackhole", "unreachable", "prohibit" or "throw"; "" if the packet may leave
}

// routeTypes contains the types of routes that drop packets, with their names in ip-route(8).
var routeTypes = map[int]string{
	unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw",
}

// RouteTo asks the kernel for the route of a packet. The parameters to and from are the packet's
// destination and source. The kernel needs both, because a routing rule (ip rule) may match both.
// iif is the link on which the packet comes in. If iif is "", the namespace itself sends the
// packet. The source is then an address of the namespace, or the zero address.
//
// Some errors identify the type of the route (see Reason). If iif is not "", EXDEV means that
// rp_filter drops the packet. Newer kernels, such as 6.18, return EINVAL instead of EXDEV. They
// also return EINVAL for a blackhole route.
func RouteTo(ns *setup.Namespace, to, from netip.Addr, iif string) (r Route, err error) {
	found, err := lookUp(ns, to, from, netlink.RouteGetOptions{Iif: iif})
	r = Route{Table: found.Table, Type: routeTypes[found.Type], Link: LinkName(ns, found.LinkIndex)}
	if a, ok := netip.AddrFromSlice(found.Gw); ok {
		r.Gateway = a.Unmap()
	}
	return r, err
}

// OnlyDefault reports whether the kernel uses a default route for a packet. The parameters are
// those of RouteTo.
func OnlyDefault(ns *setup.Namespace, to, from netip.Addr, iif string) bool {
	// With FIBMatch, the kernel returns the route as it is in the routing table. RouteTo does not
	// set FIBMatch, because a route with several next hops would then have no link.
	found, err := lookUp(ns, to, from, netlink.RouteGetOptions{Iif: iif, FIBMatch: true})
	return err == nil && isDefault(found)
}

func isDefault(r netlink.Route) bool { return r.Dst == nil || Prefix(r.Dst).Bits() == 0 }

func lookUp(ns *setup.Namespace, to, from netip.Addr, options netlink.RouteGetOptions) (r netlink.Route, err error) {
	if from.IsValid() {
		options.SrcAddr = from.AsSlice()
	}
	err = ask(ns, func(h *netlink.Handle) error {
		all, err := h.RouteGetWithOptions(to.AsSlice(), &options)
		if err == nil && len(all) == 0 {
			err = unix.ENETUNREACH
		}
		if err == nil {
			r = all[0]
		}
		return err
	})
	return r, err
}

// Reason returns in words why the kernel has no route. err is the error of RouteTo
// (net/ipv4/route.c, net/ipv6/ip6_fib.c).
func Reason(err error) string {
	switch {
	case errors.Is(err, unix.EINVAL):
		return "a blackhole route drops the packet"
	case errors.Is(err, unix.EACCES):
		return "a prohibit route or rule drops the packet"
	case errors.Is(err, unix.EHOSTUNREACH):
		return "an unreachable route or rule drops the packet"
	case errors.Is(err, unix.ENETUNREACH):
		return "the routing tables have none"
	}
	return err.Error()
}

// HasGatewayTo reports whether the main table has a route through a gateway to a part of an address
// range. Default routes do not count.
func HasGatewayTo(ns *setup.Namespace, to netip.Prefix) (bool, error) {
	routes, err := routes(ns, FamilyOf(to.Addr()), unix.RT_TABLE_MAIN)
	return slices.ContainsFunc(routes, func(r netlink.Route) bool {
		return r.Gw != nil && !isDefault(r) && Prefix(r.Dst).Overlaps(to)
	}), err
}

// Uplinks lists the links of the default routes through a gateway, for a family (AF_INET, AF_INET6)
// and in all tables.
func Uplinks(ns *setup.Namespace, family int) (links []string, err error) {
	routes, err := routes(ns, family, unix.RT_TABLE_UNSPEC)
	add := func(index int, gateway net.IP) {
		if name := LinkName(ns, index); gateway != nil && name != "" && !slices.Contains(links, name) {
			links = append(links, name)
		}
	}
	for _, r := range routes {
		if isDefault(r) {
			add(r.LinkIndex, r.Gw)
			for _, hop := range r.MultiPath {
				add(hop.LinkIndex, hop.Gw)
			}
		}
	}
	return links, err
}

// routes lists the routes of a family in a table. With RT_TABLE_UNSPEC, it lists the routes of all
// tables.
func routes(ns *setup.Namespace, family, table int) (all []netlink.Route, err error) {
	err = ask(ns, func(h *netlink.Handle) (err error) {
		all, err = setup.Dump(func() ([]netlink.Route, error) {
			return h.RouteListFiltered(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		})
		return err
	})
	return all, err
}

// Rule is a routing rule (ip rule).
type Rule struct {
	Priority, Table int
	From, To        netip.Prefix // not valid if the rule matches every address
	Marked          bool         // the rule matches packets with a mark
}

// Rules lists the routing rules of a family in the kernel's order. The list is empty for a kernel
// without routing rules.
func Rules(ns *setup.Namespace, family int) (all []Rule) {
	_ = ask(ns, func(h *netlink.Handle) error { // after an error, there are no rules
		rules, err := setup.Dump(func() ([]netlink.Rule, error) { return h.RuleList(family) })
		for _, r := range rules {
			rule := Rule{Priority: r.Priority, Table: r.Table, Marked: r.Mark != 0}
			if r.Src != nil {
				rule.From = Prefix(r.Src)
			}
			if r.Dst != nil {
				rule.To = Prefix(r.Dst)
			}
			all = append(all, rule)
		}
		return err
	})
	return all
}

// RuleOf returns the routing rule (ip rule) that selected the routing table of route r, for a
// packet with this source and destination. ok is false if r is from the table main, or if no rule
// matches.
func RuleOf(ns *setup.Namespace, r Route, from, to netip.Addr) (rule Rule, ok bool) {
	rules := Rules(ns, FamilyOf(to))
	i := slices.IndexFunc(rules, func(n Rule) bool {
		return n.Table == r.Table && (!n.From.IsValid() || n.From.Contains(from)) && (!n.To.IsValid() || n.To.Contains(to))
	})
	if i < 0 || r.Table == unix.RT_TABLE_MAIN {
		return Rule{}, false
	}
	return rules[i], true
}

// String returns the rule in the form of ip-rule(8).
func (r Rule) String() string {
	text := "from all"
	if r.From.IsValid() {
		text = "from " + r.From.String()
	}
	if r.To.IsValid() {
		text += " to " + r.To.String()
	}
	return fmt.Sprintf("%s lookup %d", text, r.Table)
}

// FamilyOf returns the family of an address: AF_INET or AF_INET6.
func FamilyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
