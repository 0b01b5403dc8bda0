package doctor

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// walk is one walk in progress.
type walk struct {
	*Doctor
	*Report
	*survey
	a, b     *End
	from, to netip.Addr
	routed   bool   // the host routes between the two
	local    bool   // the target is the host itself
	own      bool   // the target is the container itself, by whichever of its interfaces
	filtered bool   // bridged packets meet what filters forwarded ones
	out      string // the link by which the host routes to the target; "" if it does not
	refused  bool   // the filter of reverse paths was found to refuse it
}

// Walk goes the way of a packet from a container to another end, in one family. The end of
// ctx ends it, with the error of ctx.
func (d *Doctor) Walk(ctx context.Context, a, b *End, is4 bool) (*Report, error) {
	known, err := d.look()
	if err != nil {
		return nil, err
	}
	source, ok := a.Address(is4)
	target, ok2 := b.Address(is4)
	if !ok || !ok2 {
		return nil, fmt.Errorf("from %s to %s: not both have an %s address", a.Name, b.Name, familyName(is4))
	}
	w := &walk{Doctor: d, survey: known, a: a, b: b, from: source.Addr(), to: target.Addr()}
	w.Report = &Report{From: label(a, w.from), To: label(b, w.to)}
	if w.own = w.to.IsLoopback() || a == b || known.has(a.Namespace, w.to); w.own {
		w.inside(a, source)
		w.good("route of "+a.Name, "%s is its own", w.to)
		return w.Report, w.prove(ctx)
	}
	w.local = known.has(d.Host.Namespace, w.to)
	w.routed = !w.local && a.Bridge != b.Bridge && (b.Namespace != nil || !w.onBridge())

	w.inside(a, source)
	w.way(a, w.from, w.to)
	w.port(a)
	w.bridge(a)
	switch {
	case w.routed:
		w.routing()
	case w.local:
		w.wayBack(w.to, "")
	}
	if w.routed || w.filtered && !w.local {
		w.chains()
	}
	if b.Namespace != nil {
		w.isolation()
		if a.Bridge != b.Bridge {
			w.bridge(b)
		}
		w.port(b)
		w.inside(b, target)
		w.way(b, w.to, w.from)
	}
	w.conntrack()
	return w.Report, w.prove(ctx)
}

// Link looks at a container's link and at that of another, if there is one, where they
// have no addresses that a packet could be sent to.
func (d *Doctor) Link(a, b *End) (*Report, error) {
	known, err := d.look()
	if err != nil {
		return nil, err
	}
	w := &walk{Doctor: d, survey: known, a: a, b: b, Report: &Report{From: a.Name}}
	w.inside(a, netip.Prefix{})
	w.port(a)
	w.bridge(a)
	if b != nil {
		w.To = b.Name
		w.isolation()
		if a.Bridge != b.Bridge {
			w.sad("bridge", "give them addresses and routes, or one network", "they are on two bridges, %s and %s, and have no addresses to route", a.Bridge, b.Bridge)
		}
		w.port(b)
		w.inside(b, netip.Prefix{})
	}
	return w.Report, nil
}

// containers are those of the two ends that are one, each once.
func (w *walk) containers() []*End {
	if w.b.Namespace == nil || w.b == w.a {
		return []*End{w.a}
	}
	return []*End{w.a, w.b}
}

// onBridge says whether the host looks for the target on the container's bridge, as that
// of another plugin, or of a machine.
func (w *walk) onBridge() (on bool) {
	_ = w.Host.Do(func() error { // without it the host routes
		routes, err := netlink.RouteGet(w.to.AsSlice())
		if err != nil || len(routes) == 0 || routes[0].Gw != nil {
			return err
		}
		link, err := netlink.LinkByIndex(routes[0].LinkIndex)
		on = err == nil && link.Attrs().Name == w.a.Bridge
		return err
	})
	return on
}

// isolation looks whether the bridge keeps the two apart.
func (w *walk) isolation() {
	if w.a.Bridge == w.b.Bridge && w.ports[w.a.Port].Isolated && w.ports[w.b.Port].Isolated {
		w.sad("isolation", `set "portIsolation" to false, or "ingressPolicy" to another than "isolated", and make both containers again`,
			"ports %s and %s are isolated: the bridge lets neither send to the other", w.a.Port, w.b.Port)
	}
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

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// ip is ip(8), with the flag of the family where it needs that.
func ip(a netip.Addr) string { return map[bool]string{true: "ip", false: "ip -6"}[a.Is4()] }

// familyFlag is what ip(8) calls the family.
func familyFlag(a netip.Addr) string {
	return map[bool]string{true: "-4", false: "-6"}[a.Is4()]
}
