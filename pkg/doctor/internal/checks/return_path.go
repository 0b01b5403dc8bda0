package checks

import (
	"fmt"
	"net/netip"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
)

// CheckReturnPath checks that the host sends answers to container A through A's bridge. The
// parameter from is the source address of the answers. The parameter in is the link on which the
// answers come in, or "" if the host itself sends them. CheckReturnPath returns the link by which
// the answers leave, or "" if the kernel refuses to route them.
func (p *Path) CheckReturnPath(from netip.Addr, in string) string {
	back, err := kernel.RouteTo(p.Host.Namespace, p.From, from, in)
	if err != nil {
		if back, err = kernel.RouteTo(p.Host.Namespace, p.From, netip.Addr{}, ""); err != nil || isOf(back.Link, p.A.Bridge) {
			return ""
		}
	}
	if isOf(back.Link, p.A.Bridge) {
		return back.Link
	}
	what := fmt.Sprintf("answers to %s leave by %s instead of bridge %s", p.From, back.Link, p.A.Bridge)
	advice := fmt.Sprintf("another route matches first; check ip %[1]s rule; ip %[1]s route show table all match %[2]s", familyOption(p.From), p.From)
	if rule, ok := kernel.RuleOf(p.Host.Namespace, back, from, p.From); ok {
		what += fmt.Sprintf(", because of the routing rule %q", rule)
		if main, err := kernel.RouteTo(p.Host.Namespace, p.From, netip.Addr{}, ""); err == nil && isOf(main.Link, p.A.Bridge) {
			subnet, _ := p.A.Address(p.Is4())
			advice = fmt.Sprintf("%s rule add to %s lookup main pref %d", report.IP(p.From), subnet.Masked(), rule.Priority-1)
		}
	}
	if p.isStrict(p.A.Bridge) {
		p.Refused = true
		what += fmt.Sprintf("; so rp_filter on %s drops packets from %s", p.A.Bridge, p.From)
	}
	p.Advise("return path", advice, "%s", what).Root = true
	return back.Link
}

// refusesSource reports whether a strict rp_filter on the bridge drops the packet. CheckHostRoute
// needs it when the kernel refuses to route the packet, because the kernel's error may be the same
// for rp_filter and for a blackhole route.
func (p *Path) refusesSource() bool {
	guess, err := kernel.RouteTo(p.Host.Namespace, p.To, netip.Addr{}, "") // without a source address, the kernel does not apply rp_filter
	if err != nil {
		return false
	}
	switch back := p.CheckReturnPath(p.To, guess.Link); {
	case back != "":
		return !isOf(back, p.A.Bridge)
	case !p.isStrict(p.A.Bridge):
		return false
	}
	p.Refused = true
	p.Bad("rp_filter", report.SetSysctl("ipv4/conf/"+p.A.Bridge+"/rp_filter", "2"), "rp_filter on %s drops packets from %s, because the host's route to that address leaves by another link", p.A.Bridge, p.From)
	return true
}

// isStrict reports whether rp_filter is strict on a link of the host.
func (p *Path) isStrict(link string) bool {
	return p.Is4() && max(kernel.Sysctl(p.Host.Namespace, "ipv4/conf/all/rp_filter"), kernel.Sysctl(p.Host.Namespace, "ipv4/conf/"+link+"/rp_filter")) == "1"
}
