package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostRoute is the host's route for one packet.
type hostRoute struct {
	netlink.Route
	link string // by which the packet leaves
}

// isDefault reports whether nothing narrower than the default route leads there.
func (r hostRoute) isDefault() bool { return r.Dst == nil || prefixOf(r.Dst).Bits() == 0 }

// isOf says whether a link is a bridge or one of its VLANs.
func isOf(link, bridge string) bool { return link == bridge || strings.HasPrefix(link, bridge+".") }

// routeTo asks the kernel for the host's route to an address, as its rules (ip rule) choose it for
// that source. iif is the link by which the packet comes in. Without it the packet is the host's own,
// and from is an address of the host or none. Dst is that of the route.
func (d *Doctor) routeTo(to, from netip.Addr, iif string) (r hostRoute, err error) {
	options := &netlink.RouteGetOptions{Iif: iif, FIBMatch: true}
	if from.IsValid() {
		options.SrcAddr = from.AsSlice()
	}
	err = d.Host.Do(func() error {
		all, err := netlink.RouteGetWithOptions(to.AsSlice(), options)
		if err != nil || len(all) == 0 {
			return errors.Join(err, unix.ENETUNREACH)
		}
		r.Route = all[0]
		if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
			r.link = link.Attrs().Name
		}
		return nil
	})
	return r, err
}

// routing looks at what the host does with a packet that it is to route.
func (w *walk) routing() {
	if !w.forwards() {
		return
	}
	station := "route of the host"
	look := fmt.Sprintf("ip %[1]s rule; ip %[1]s route show table all match %[2]s", familyFlag(w.to), w.to)
	there, err := w.routeTo(w.to, w.from, w.a.Bridge)
	out := there.link
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) {
		// So the kernel answers for a blackhole route, but also where the filter of reverse paths drops the packet.
		if guess, failed := w.routeTo(w.to, netip.Addr{}, ""); failed == nil {
			out = guess.link
			if back := w.wayBack(w.to, out); back != "" && !isOf(back, w.a.Bridge) || back == "" && w.reversePath(w.a.Bridge) {
				return
			}
		}
	}
	switch {
	case err != nil && w.noNodeRoute(err):
		return
	case err != nil:
		w.sad(station, "look at "+look+": name the router that leads there (ip route add), or take away what is in the way", "no way to %s: %s", w.to, routeError(err))
		return
	case routeType(there.Type) != "":
		w.sad(station, "look at "+look, "it drops what goes to %s: a %s route is in the way", w.to, routeType(there.Type))
		return
	case w.b.Namespace != nil && !isOf(out, w.b.Bridge):
		w.sad(station, "another route is in the way: "+look, "to %s by %s instead of bridge %s", w.to, out, w.b.Bridge)
		w.isRoot()
	default:
		w.good(station, "to %s by %s", w.to, out)
		w.out = out
	}
	w.wayBack(w.to, out)
	w.otherUplinks()
}

// wayBack looks by which link answers from an address to the container leave the host, and returns that,
// "" if the kernel does not tell. in is the link by which answers come in, "" if they are the host's own.
func (w *walk) wayBack(from netip.Addr, in string) string {
	back, err := w.routeTo(w.from, from, in)
	if err != nil {
		if back, err = w.routeTo(w.from, netip.Addr{}, ""); err != nil || isOf(back.link, w.a.Bridge) {
			return ""
		}
	}
	if isOf(back.link, w.a.Bridge) {
		return back.link
	}
	what := fmt.Sprintf("answers to %s leave by %s instead of bridge %s", w.from, back.link, w.a.Bridge)
	advice := fmt.Sprintf("another route is in the way: ip %[1]s rule; ip %[1]s route show table all match %[2]s", familyFlag(w.from), w.from)
	if rule := w.ruleOf(back, from, w.from); rule != nil {
		what += fmt.Sprintf(", by the rule %q", ruleText(rule))
		if main, err := w.routeTo(w.from, netip.Addr{}, ""); err == nil && isOf(main.link, w.a.Bridge) {
			subnet, _ := w.a.Address(w.from.Is4())
			advice = fmt.Sprintf("%s rule add to %s lookup main pref %d", ip(w.from), subnet.Masked(), rule.Priority-1)
		}
	}
	if w.strict(w.a.Bridge) {
		w.refused = true
		what += fmt.Sprintf("; so %s refuses what comes from %s (rp_filter=1)", w.a.Bridge, w.from)
	}
	w.sad("way back", advice, "%s", what)
	w.isRoot()
	return back.link
}

// rules lists the host's routing rules of a family, in their order.
func (d *Doctor) rules(family int) (all []netlink.Rule) {
	_ = d.Host.Do(func() (err error) { // a kernel without rules has none
		all, err = dump(func(_ struct{}, family int) ([]netlink.Rule, error) { return here.RuleList(family) }, struct{}{}, family)
		return err
	})
	return all
}

// ruleOf returns the rule that chose a route for packets between two addresses; nil for the table main.
func (d *Doctor) ruleOf(r hostRoute, from, to netip.Addr) *netlink.Rule {
	fits := func(n *netlink.Rule) bool {
		return n.Table == r.Table && (n.Src == nil || prefixOf(n.Src).Contains(from)) && (n.Dst == nil || prefixOf(n.Dst).Contains(to))
	}
	for _, rule := range d.rules(familyOf(to)) {
		if fits(&rule) && r.Table != unix.RT_TABLE_MAIN {
			return &rule
		}
	}
	return nil
}

// ruleText is a rule as ip-rule(8) shows it.
func ruleText(r *netlink.Rule) string {
	text := "from all"
	if r.Src != nil {
		text = "from " + r.Src.String()
	}
	if r.Dst != nil {
		text += " to " + r.Dst.String()
	}
	return fmt.Sprintf("%s lookup %d", text, r.Table)
}

// otherUplinks notes that a container with host ports is asked by several uplinks, and answers by one.
// A connection keeps its addresses, but every packet of it is routed anew.
func (w *walk) otherUplinks() {
	if !w.beyond() || slices.ContainsFunc(w.rules(familyOf(w.to)), func(r netlink.Rule) bool { return r.Mark != 0 }) {
		return // whoever marks packets may have seen to it
	}
	if ports, err := w.Host.HostPorts(); err != nil || len(ports[w.ports[w.a.Port].Key]) == 0 {
		return
	}
	for _, link := range w.uplinks() {
		if link != w.out {
			w.note("uplinks", "requests to its host ports that come in by %s are answered by %s, where routers may drop the answers. "+
				"Mark each connection by the link that it came in by (CONNMARK), and give the mark a rule (%s rule add fwmark)", link, w.out, ip(w.to))
		}
	}
}

// uplinks lists the links of the host's default routes, in all tables.
func (w *walk) uplinks() (links []string) {
	_ = w.Host.Do(func() error { // without them there is nothing to note
		routes, err := dump(func(table *netlink.Route, family int) ([]netlink.Route, error) {
			return here.RouteListFiltered(family, table, netlink.RT_FILTER_TABLE)
		}, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, familyOf(w.to))
		for _, r := range routes {
			link, failed := netlink.LinkByIndex(r.LinkIndex)
			if failed == nil && r.Gw != nil && (hostRoute{Route: r}).isDefault() && !slices.Contains(links, link.Attrs().Name) {
				links = append(links, link.Attrs().Name)
			}
		}
		return err
	})
	return links
}

// noNodeRoute says that the host has no route to the node of a pod, if the target is a pod of another
// node, and gives the command that adds it. err is that of the host's route to the pod, if any.
func (w *walk) noNodeRoute(err error) bool {
	i := slices.IndexFunc(w.PodRanges, func(p netip.Prefix) bool { return p.Contains(w.to) })
	if i < 0 || !w.beyond() || !w.routed || err != nil && !errors.Is(err, unix.ENETUNREACH) {
		return false
	}
	what := "no route leads there"
	if err == nil {
		route, failed := w.routeTo(w.to, w.from, w.a.Bridge)
		if failed != nil || !route.isDefault() {
			return false
		}
		what = "only the default route, by " + route.link + ", leads there"
	}
	own, _ := w.a.Address(w.to.Is4())
	w.sad("route of the host", fmt.Sprintf("%s route add %s via NODE, where NODE is the address of the pod's node", ip(w.to), netip.PrefixFrom(w.to, own.Bits()).Masked()),
		"%s is a pod's address (masqExclude %s), and %s", w.to, w.PodRanges[i], what)
	return true
}

// forwards says whether the host routes what comes from the bridge.
func (w *walk) forwards() bool {
	family, key := "ipv4", "ipv4/ip_forward"
	if w.from.Is6() {
		family, key = "ipv6", "ipv6/conf/all/forwarding"
	}
	for _, key := range []string{key, family + "/conf/" + w.a.Bridge + "/forwarding"} {
		if value := sysctl(w.Host.Namespace, key); value != "" && value != "1" {
			w.bad("forwarding", setSysctl(key, "1"), "the host does not route: net/%s is %s", key, value)
			return false
		}
	}
	w.good("forwarding", "the host routes %s", familyName(w.from.Is4()))
	return true
}

// strict says whether the filter of reverse paths is strict at a link of the host.
func (w *walk) strict(link string) bool {
	return w.from.Is4() && max(sysctl(w.Host.Namespace, "ipv4/conf/all/rp_filter"), sysctl(w.Host.Namespace, "ipv4/conf/"+link+"/rp_filter")) == "1"
}

// reversePath says whether the filter of reverse paths is strict at a link, which the way
// back does not leave by.
func (w *walk) reversePath(link string) bool {
	if w.strict(link) {
		w.refused = true
		w.bad("reverse path", setSysctl("ipv4/conf/"+link+"/rp_filter", "2"), "%s refuses what comes from %s, whose way back is another (rp_filter=1)", link, w.from)
	}
	return w.refused
}
