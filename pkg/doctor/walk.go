package doctor

import (
	"context"
	"fmt"
	"net/netip"
)

// Walk checks each station on the path from container a to end b, and then sends a packet to b. The
// packet is an IPv4 packet if is4 is true, otherwise an IPv6 packet. When ctx is done, Walk returns
// the error of ctx.
func (d *Doctor) Walk(ctx context.Context, a, b *End, is4 bool) (*Report, error) {
	p, err := d.newPath(a, b)
	if err != nil {
		return nil, err
	}
	source, ok := a.Address(is4)
	target, ok2 := b.Address(is4)
	if !ok || !ok2 {
		return nil, fmt.Errorf("from %s to %s: one of the two has no %s address", a.Name, b.Name, map[bool]string{true: "IPv4", false: "IPv6"}[is4])
	}
	p.From, p.To = source.Addr(), target.Addr()
	p.Report.From, p.Report.To = label(a, p.From), label(b, p.To)
	p.SetPlace()

	p.CheckInterface(a, source)
	if p.Own {
		p.Good("route of "+a.Name, "%s is an address of the container itself", p.To)
		return p.Report, prove(ctx, p)
	}
	p.CheckRoute(a, p.From, p.To)
	p.CheckPort(a)
	p.CheckBridge(a)
	switch {
	case p.Routed:
		p.CheckHostRoute()
		p.CheckNode()
	case p.Local:
		p.CheckReturnPath(p.To, "")
	}
	if p.Routed || p.Filtered && !p.Local {
		p.CheckForwardChains()
	}
	if p.Routed {
		p.CheckFastPath()
	}
	if b.Namespace != nil {
		p.CheckIsolation()
		if a.Bridge != b.Bridge {
			p.CheckBridge(b)
		}
		p.CheckPort(b)
		p.CheckInterface(b, target)
		p.CheckRoute(b, p.To, p.From)
	}
	p.CheckConntrack()
	return p.Report, prove(ctx, p)
}

// Link checks the interface, port and bridge of container a, and also those of container b if b is
// not nil. It is for networks without addresses, where no packet can be sent.
func (d *Doctor) Link(a, b *End) (*Report, error) {
	p, err := d.newPath(a, b)
	if err != nil {
		return nil, err
	}
	p.CheckInterface(a, netip.Prefix{})
	p.CheckPort(a)
	p.CheckBridge(a)
	if b != nil {
		p.Report.To = b.Name
		p.CheckIsolation()
		if a.Bridge != b.Bridge {
			p.Advise("bridge", "give both networks addresses and routes, or put both containers on one network", "the containers are on two bridges, %s and %s, and have no addresses", a.Bridge, b.Bridge)
		}
		p.CheckPort(b)
		p.CheckInterface(b, netip.Prefix{})
	}
	return p.Report, nil
}

// label returns the name of an end together with its address.
func label(e *End, a netip.Addr) string {
	if e.Name == a.String() {
		return e.Name
	}
	return fmt.Sprintf("%s (%s)", e.Name, a)
}
