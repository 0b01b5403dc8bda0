package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// walk is one walk in progress.
type walk struct {
	*Doctor
	*Report
	a, b     *End
	from, to netip.Addr
	ports    map[string]setup.FoundPort // by name
	routed   bool                       // the host routes between the two
	local    bool                       // the target is the host itself
	filtered bool                       // bridged packets meet what filters forwarded ones
	refused  bool                       // the filter of reverse paths was found to refuse it
}

// Walk goes the way of a packet from a container to another end, in one family. The end of
// ctx ends it, with the error of ctx.
func (d *Doctor) Walk(ctx context.Context, a, b *End, is4 bool) (*Report, error) {
	w := &walk{Doctor: d, Report: &Report{From: a.Name, To: b.Name}, a: a, b: b, ports: map[string]setup.FoundPort{}}
	source, ok := a.address(is4)
	target, ok2 := b.address(is4)
	if !ok || !ok2 {
		return nil, fmt.Errorf("from %s to %s: not both have an %s address", a.Name, b.Name, familyName(is4))
	}
	w.from, w.to = source.Addr(), target.Addr()
	w.From, w.To = label(a, w.from), label(b, w.to)
	ports, err := d.Host.Ports()
	if err != nil {
		return nil, err
	}
	for _, p := range ports {
		w.ports[p.Name] = p
	}
	if w.local, err = hasAddress(d.Host, w.to); err != nil {
		return nil, err
	}
	w.routed = !w.local && (b.Namespace == nil || a.Bridge != b.Bridge)

	w.inside(a, source)
	w.way(a, w.from, w.to)
	w.port(a)
	w.bridge(a)
	if w.routed {
		w.routing()
	}
	if w.routed || w.filtered && !w.local {
		w.chains()
	}
	if b.Namespace != nil {
		if a.Bridge == b.Bridge && w.ports[a.Port].Isolated && w.ports[b.Port].Isolated {
			w.sad("isolation", `set "portIsolation" to false, or "ingressPolicy" to another than "isolated", and make both containers again`,
				"ports %s and %s are isolated: the bridge lets neither send to the other", a.Port, b.Port)
		}
		if a.Bridge != b.Bridge {
			w.bridge(b)
		}
		w.port(b)
		w.inside(b, target)
		w.way(b, w.to, w.from)
	}
	w.conntrack()
	w.drift(a)
	w.drift(b)
	return w.Report, w.prove(ctx)
}

func label(e *End, a netip.Addr) string {
	if e.Name == a.String() {
		return e.Name
	}
	return fmt.Sprintf("%s (%s)", e.Name, a)
}

func familyName(is4 bool) string {
	return map[bool]string{true: "IPv4", false: "IPv6"}[is4]
}

// in is a command as it is to be run for a container.
func (e *End) in(format string, args ...any) string {
	return "nsenter --net=" + e.Namespace.Path + " " + fmt.Sprintf(format, args...)
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func familyFlag(a netip.Addr) string {
	if a.Is4() {
		return ""
	}
	return "-6 "
}

// inside looks at a container's interface and its address.
func (w *walk) inside(e *End, given netip.Prefix) {
	const again = "remove the container and make it again"
	station := "interface of " + e.Name
	var link netlink.Link
	var addresses []netlink.Addr
	err := e.Namespace.Do(func() (err error) {
		if link, err = netlink.LinkByName(e.Interface); err != nil {
			return err
		}
		addresses, err = dump(here.AddrList, link, familyOf(given.Addr()))
		return err
	})
	switch {
	case err != nil:
		w.sad(station, again, "%s is not there: %v", e.Interface, err)
		return
	case link.Attrs().Flags&net.FlagUp == 0:
		w.bad(station, e.in("ip link set %s up", e.Interface), "%s is down; routes went with it, so make the container again if this does not help", e.Interface)
	case link.Attrs().RawFlags&unix.IFF_LOWER_UP == 0:
		w.note(station, "%s has no carrier: its other end is down", e.Interface)
	default:
		w.good(station, "%s is up, MTU %d", e.Interface, link.Attrs().MTU)
	}
	station = "address of " + e.Name
	i := slices.IndexFunc(addresses, func(a netlink.Addr) bool { return prefixOf(a.IPNet).Addr() == given.Addr() })
	switch {
	case i < 0:
		w.bad(station, e.in("ip addr add %s dev %s", given, e.Interface), "%s does not have %s", e.Interface, given.Addr())
		return
	case prefixOf(addresses[i].IPNet) != given:
		w.bad(station, e.in("sh -c 'ip addr add %s dev %s; ip addr del %s dev %s'", given, e.Interface, prefixOf(addresses[i].IPNet), e.Interface),
			"it is %s instead of %s: neighbours are looked for in the wrong place", prefixOf(addresses[i].IPNet), given)
	case addresses[i].Flags&unix.IFA_F_DADFAILED != 0:
		w.sad(station, "give one of them another address", "somebody else on the link has %s: the kernel does not use it", given.Addr())
	case addresses[i].Flags&unix.IFA_F_TENTATIVE != 0:
		w.note(station, "%s is still looked for duplicates of, and not used until then", given.Addr())
	default:
		w.good(station, "%s", given)
	}
	for _, other := range w.Ends {
		if other.Namespace == nil || other.Bridge != e.Bridge || other.Namespace.Same(e.Namespace) {
			continue
		}
		if has, err := hasAddress(other.Namespace, given.Addr()); err == nil && has {
			w.sad(station, "give one of them another address", "%s has %s too: answers go to whoever was heard last", other.Name, given.Addr())
		}
	}
	if has, err := hasAddress(w.Host, given.Addr()); err == nil && has {
		w.sad(station, "take it off the host, or give the container another", "the host has %s too", given.Addr())
	}
}

// hasAddress says whether a namespace has an address, on whichever link.
func hasAddress(ns *setup.Namespace, a netip.Addr) (has bool, err error) {
	err = ns.Do(func() error {
		all, err := dump(here.AddrList, nil, familyOf(a))
		has = slices.ContainsFunc(all, func(x netlink.Addr) bool { return prefixOf(x.IPNet).Addr() == a })
		return err
	})
	return has, err
}

// here asks the namespace that the calling thread is in.
var here netlink.Handle

// dump calls a listing again for as long as the kernel says that it changed while it was
// read (NLM_F_DUMP_INTR).
func dump[Of, T any](list func(Of, int) ([]T, error), of Of, family int) ([]T, error) {
	for {
		all, err := list(of, family)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// way looks at a container's route to an address, and at the neighbour that it leads by.
func (w *walk) way(e *End, from, to netip.Addr) {
	station := "route of " + e.Name
	var routes []netlink.Route
	var link netlink.Link
	err := e.Namespace.Do(func() (err error) {
		if link, err = netlink.LinkByName(e.Interface); err != nil {
			return err
		}
		routes, err = netlink.RouteGetWithOptions(to.AsSlice(), &netlink.RouteGetOptions{SrcAddr: from.AsSlice()})
		return err
	})
	if link == nil {
		return // said already
	}
	gateway := w.gateway(e, to.Is4())
	if err != nil || len(routes) == 0 {
		command := "give the network \"isDefaultGateway\": true, and make the container again"
		if gateway.IsValid() {
			w.bad(station, e.in("ip %sroute add default via %s dev %s", familyFlag(to), gateway, e.Interface), "it has none to %s: %v", to, err)
			return
		}
		w.sad(station, command, "it has none to %s: %v", to, err)
		return
	}
	r := routes[0]
	hop, _ := netip.AddrFromSlice(r.Gw)
	hop = hop.Unmap()
	switch {
	case r.Type != unix.RTN_UNICAST && r.Type != 0:
		w.sad(station, e.in("ip %sroute del %s", familyFlag(to), to), "%s is not reached by a route of type %d (ip-route(8): 6 blackhole, 7 unreachable, 8 prohibit)", to, r.Type)
		return
	case r.LinkIndex != link.Attrs().Index:
		w.note(station, "%s is reached by another interface than %s", to, e.Interface)
		return
	case hop.IsValid():
		if has, err := hasAddress(w.Host, hop); err == nil && !has {
			if !gateway.IsValid() {
				w.bad(station, "bvctl repair", "by %s, which nobody has: bridge %s lost its address", hop, e.Bridge)
			} else {
				w.bad(station, e.in("ip %sroute replace default via %s dev %s", familyFlag(to), gateway, e.Interface), "by %s, which nobody has; the gateway of bridge %s is %s", hop, e.Bridge, gateway)
			}
			return
		}
		w.good(station, "to %s by %s", to, hop)
	case w.routed:
		w.sad(station, "look at the prefix of its address and at its routes", "%s is looked for on the link, and is not there", to)
		return
	default:
		w.good(station, "to %s on the link", to)
		hop = to
	}
	w.neighbour(e, link, hop)
}

// gateway is the bridge's address of a family.
func (w *walk) gateway(e *End, is4 bool) (gateway netip.Addr) {
	_ = w.Host.Do(func() error { // without it there is none to name
		br, err := netlink.LinkByName(e.Bridge)
		if err != nil {
			return err
		}
		given, _ := e.address(is4)
		all, err := dump(here.AddrList, br, familyOf(given.Addr()))
		for _, a := range all {
			if p := prefixOf(a.IPNet); given.Contains(p.Addr()) {
				gateway = p.Addr()
			}
		}
		return err
	})
	return gateway
}

// neighbour compares what a container believes to be a neighbour's MAC with what it is.
func (w *walk) neighbour(e *End, link netlink.Link, hop netip.Addr) {
	station := "neighbour of " + e.Name
	want := w.macOf(hop)
	var all []netlink.Neigh
	err := e.Namespace.Do(func() (err error) {
		all, err = dump(here.NeighList, link.Attrs().Index, familyOf(hop))
		return err
	})
	if err != nil {
		w.note(station, "%v", err)
		return
	}
	for _, n := range all {
		a, _ := netip.AddrFromSlice(n.IP)
		if a.Unmap() != hop || len(n.HardwareAddr) == 0 || want == nil {
			continue
		}
		if n.HardwareAddr.String() != want.String() {
			w.bad(station, e.in("ip neigh del %s dev %s", hop, e.Interface), "it takes %s for %s, which has %s", n.HardwareAddr, hop, want)
			return
		}
	}
	w.good(station, "nothing wrong is remembered of %s", hop)
}

// macOf is the MAC of who has an address: a container, or the host.
func (w *walk) macOf(a netip.Addr) (mac net.HardwareAddr) {
	for _, e := range append([]*End{w.b, w.a}, w.Ends...) {
		if e.Namespace == nil || !slices.ContainsFunc(e.Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
			continue
		}
		_ = e.Namespace.Do(func() error { // without it there is nothing to compare with
			link, err := netlink.LinkByName(e.Interface)
			if err == nil {
				mac = link.Attrs().HardwareAddr
			}
			return err
		})
		return mac
	}
	_ = w.Host.Do(func() error { // as above
		all, err := dump(here.AddrList, nil, familyOf(a))
		for _, x := range all {
			if prefixOf(x.IPNet).Addr() == a {
				var link netlink.Link
				if link, err = netlink.LinkByIndex(x.LinkIndex); err == nil {
					mac = link.Attrs().HardwareAddr
				}
			}
		}
		return err
	})
	return mac
}

// port looks at the host end.
func (w *walk) port(e *End) {
	station := "port of " + e.Name
	p, found := w.ports[e.Port]
	switch {
	case !found:
		w.sad(station, "remove the container and make it again", "%s is not there", e.Port)
	case p.Bridge != e.Bridge:
		w.bad(station, fmt.Sprintf("ip link set %s master %s", e.Port, e.Bridge), "%s is on no bridge instead of %s", e.Port, e.Bridge)
	case !p.Up:
		w.bad(station, fmt.Sprintf("ip link set %s up", e.Port), "%s is down", e.Port)
	case !p.Forwarding:
		w.note(station, "bridge %s does not forward what comes by %s: its other end is down, or STP is at work", e.Bridge, e.Port)
	default:
		w.good(station, "%s on bridge %s forwards", e.Port, e.Bridge)
	}
}

// bridge looks at a container's bridge.
func (w *walk) bridge(e *End) {
	station := "bridge " + e.Bridge
	var link netlink.Link
	err := w.Host.Do(func() (err error) { link, err = netlink.LinkByName(e.Bridge); return err })
	switch {
	case err != nil:
		w.sad(station, "remove the containers and make them again", "it is not there")
	case link.Attrs().Flags&net.FlagUp == 0:
		w.bad(station, "ip link set "+e.Bridge+" up", "it is down")
	default:
		calls, _ := w.sysctl(w.Host, "bridge/bridge-nf-call-"+map[bool]string{true: "iptables", false: "ip6tables"}[w.from.Is4()])
		if calls == "1" {
			w.good(station, "up; iptables sees bridged packets too (br_netfilter)")
			w.filtered = true
		} else {
			w.good(station, "up; bridged packets go past iptables")
		}
	}
}

// sysctl reads one of a namespace's.
func (w *walk) sysctl(ns *setup.Namespace, key string) (value string, err error) {
	err = ns.Do(func() error {
		b, err := os.ReadFile("/proc/sys/net/" + key)
		value = strings.TrimSpace(string(b))
		return err
	})
	return value, err
}

// routing looks at what the host does with a packet that it is to route.
func (w *walk) routing() {
	key := "ipv4/ip_forward"
	if w.from.Is6() {
		key = "ipv6/conf/all/forwarding"
	}
	if value, err := w.sysctl(w.Host, key); err == nil && value != "1" {
		w.bad("forwarding", "sysctl -w net."+strings.ReplaceAll(key, "/", ".")+"=1", "the host does not route: net/%s is %s", key, value)
	} else {
		w.good("forwarding", "the host routes %s", familyName(w.from.Is4()))
	}
	var there, back []netlink.Route
	var out netlink.Link
	err := w.Host.Do(func() (err error) {
		there, err = netlink.RouteGetWithOptions(w.to.AsSlice(), &netlink.RouteGetOptions{SrcAddr: w.from.AsSlice(), Iif: w.a.Bridge})
		if err == nil && len(there) > 0 && there[0].LinkIndex != 0 {
			out, _ = netlink.LinkByIndex(there[0].LinkIndex)
		}
		back, _ = netlink.RouteGet(w.from.AsSlice())
		return err
	})
	station := "route of the host"
	switch {
	case (errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL)) && w.reversePath(w.a.Bridge):
		return
	case err != nil || len(there) == 0:
		w.sad(station, fmt.Sprintf("ip %sroute add %s via ...: name the router that leads there; or ip %sroute del, if a blackhole or prohibit was meant for others", familyFlag(w.to), w.to, familyFlag(w.to)),
			"it has none to %s: %v", w.to, err)
		return
	case there[0].Type != unix.RTN_UNICAST && there[0].Type != 0:
		w.sad(station, fmt.Sprintf("ip %sroute del %s", familyFlag(w.to), w.to), "it drops what goes to %s: type %d (ip-route(8): 6 blackhole, 7 unreachable, 8 prohibit)", w.to, there[0].Type)
		return
	case out != nil && w.b.Namespace != nil && out.Attrs().Name != w.b.Bridge:
		w.sad(station, fmt.Sprintf("ip %sroute show to match %s: another route is in the way", familyFlag(w.to), w.to), "to %s by %s instead of bridge %s", w.to, out.Attrs().Name, w.b.Bridge)
	case out != nil:
		w.good(station, "to %s by %s", w.to, out.Attrs().Name)
	}
	if len(back) > 0 {
		var link netlink.Link
		_ = w.Host.Do(func() (err error) { link, err = netlink.LinkByIndex(back[0].LinkIndex); return err }) // as long as there is one
		if link != nil && link.Attrs().Name != w.a.Bridge && !strings.HasPrefix(link.Attrs().Name, w.a.Bridge+".") {
			w.sad("way back", fmt.Sprintf("ip %sroute show to match %s: another route is in the way", familyFlag(w.from), w.from), "answers to %s leave by %s instead of bridge %s", w.from, link.Attrs().Name, w.a.Bridge)
		}
	}
}

// reversePath says whether the filter of reverse paths is strict at a link, which the way
// back does not leave by.
func (w *walk) reversePath(link string) bool {
	all, _ := w.sysctl(w.Host, "ipv4/conf/all/rp_filter")
	own, _ := w.sysctl(w.Host, "ipv4/conf/"+link+"/rp_filter")
	if w.from.Is4() && max(all, own) == "1" {
		w.refused = true
		w.bad("reverse path", "sysctl -w net.ipv4.conf."+strings.ReplaceAll(link, ".", "/")+".rp_filter=2",
			"%s refuses what comes from %s, whose way back is another (rp_filter=1)", link, w.from)
	}
	return w.refused
}

// chains lists those that a forwarded packet has to pass, in their order. What they do with
// ours is proved later.
func (w *walk) chains() {
	chains, err := w.Host.ForwardChains(familyOf(w.from))
	if err != nil {
		w.note("forward chains", "%v", err)
	}
	for _, c := range chains {
		if c.Owner == setup.OwnerUs {
			continue
		}
		what := fmt.Sprintf("priority %d, %s", c.Priority, cmp.Or(string(c.Owner), "not one that we know"))
		if c.Denies != "" {
			what += ", " + c.Denies
		}
		if station := "chain " + c.String(); c.Owner == setup.OwnerUnknown && c.Denies != "" {
			w.note(station, "%s", what)
		} else {
			w.good(station, "%s", what)
		}
	}
}

// conntrack looks whether there is room for another connection.
func (w *walk) conntrack() {
	count, err := w.sysctl(w.Host, "netfilter/nf_conntrack_count")
	limit, err2 := w.sysctl(w.Host, "netfilter/nf_conntrack_max")
	if err != nil || err2 != nil {
		return // there is no conntrack
	}
	used, _ := strconv.Atoi(count)
	if most, _ := strconv.Atoi(limit); used >= most {
		w.bad("conntrack", fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d", 2*most), "its table is full, with %d connections: new ones are dropped", used)
	} else {
		w.good("conntrack", "%d of %d connections", used, most)
	}
}

// drift compares a container with what ADD has made of it.
func (w *walk) drift(e *End) {
	if e.Drift == nil {
		return
	}
	station := "as ADD left " + e.Name
	host, inside := e.Drift()
	if host == nil && inside == nil {
		w.good(station, "nothing is missing")
	}
	if host != nil {
		for _, line := range strings.Split(host.Error(), "\n") {
			w.bad(station, "bvctl repair", "%s", line)
		}
	}
	if inside != nil {
		for _, line := range strings.Split(inside.Error(), "\n") {
			w.sad(station, "undo that, or remove the container and make it again", "%s", line)
		}
	}
}
