package checks

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
)

// CheckHostRoute checks how the host routes the packet, and its answer.
func (p *Path) CheckHostRoute() {
	if !p.checkForwarding() {
		return
	}
	station := "route of the host"
	look := fmt.Sprintf("ip %[1]s rule; ip %[1]s route show table all match %[2]s", familyOption(p.To), p.To)
	there, err := kernel.RouteTo(p.Host.Namespace, p.To, p.From, p.A.Bridge)
	if (errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL)) && p.refusesSource() {
		return
	}
	switch {
	case err != nil && p.AddNoNodeRoute(err):
		return
	case err != nil:
		p.Advise(station, "look at "+look+": name the router that leads there (ip route add), or take away what is in the way", "no way to %s: %s", p.To, kernel.Reason(err))
		return
	case there.Type != "":
		p.Advise(station, "look at "+look, "it drops what goes to %s: a %s route is in the way", p.To, there.Type)
		return
	case p.B.Namespace != nil && !isOf(there.Link, p.B.Bridge):
		p.Advise(station, "another route is in the way: "+look, "to %s by %s instead of bridge %s", p.To, there.Link, p.B.Bridge).Root = true
	default:
		p.Good(station, "to %s by %s", p.To, there.Link)
		p.Out = there.Link
	}
	p.CheckWayBack(p.To, there.Link)
	p.checkUplinks()
}

// checkForwarding checks whether the host routes packets from the bridge.
func (p *Path) checkForwarding() bool {
	family, key := "ipv4", "ipv4/ip_forward"
	if p.From.Is6() {
		family, key = "ipv6", "ipv6/conf/all/forwarding"
	}
	for _, key := range []string{key, family + "/conf/" + p.A.Bridge + "/forwarding"} {
		if value := kernel.Sysctl(p.Host.Namespace, key); value != "" && value != "1" {
			p.Bad("forwarding", report.SetSysctl(key, "1"), "the host does not route: net/%s is %s", key, value)
			return false
		}
	}
	p.Good("forwarding", "the host routes %s", familyName(p.Is4()))
	return true
}

// isOf reports whether a link is a bridge or one of its VLANs.
func isOf(link, bridge string) bool { return link == bridge || strings.HasPrefix(link, bridge+".") }

// AddNoNodeRoute reports whether the target is a pod on another node and the host has no route to it but the
// default route. If so, it adds that, with the command that adds the route. err is the error of the host's route to
// the pod, if any.
func (p *Path) AddNoNodeRoute(err error) bool {
	pods, ok := p.podRange()
	if !ok || !p.Beyond() || !p.Routed || err != nil && !errors.Is(err, unix.ENETUNREACH) {
		return false
	}
	what := "no route leads there"
	if err == nil {
		if !kernel.OnlyDefault(p.Host.Namespace, p.To, p.From, p.A.Bridge) {
			return false
		}
		what = "only the default route, by " + p.Out + ", leads there"
	}
	own, _ := p.A.Address(p.To.Is4())
	p.Advise("route of the host", fmt.Sprintf("%s route add %s via NODE, where NODE is the address of the pod's node", report.IP(p.To), netip.PrefixFrom(p.To, own.Bits()).Masked()),
		"%s is a pod's address (masqExclude %s), and %s", p.To, pods, what)
	return true
}

// podRange returns the range of pods that the target is in.
func (p *Path) podRange() (pods netip.Prefix, ok bool) {
	for _, pods := range p.PodRanges {
		if pods.Contains(p.To) {
			return pods, true
		}
	}
	return pods, false
}
