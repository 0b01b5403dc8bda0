package checks

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
)

// CheckHostRoute checks how the host routes the packet and the answer to it.
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
		p.Advise(station, "check "+look+": add a route (ip route add), or delete the route or rule that drops the packet", "no route to %s: %s", p.To, kernel.Reason(err))
		return
	case there.Type != "":
		p.Advise(station, "check "+look, "a %s route drops packets to %s", there.Type, p.To)
		return
	case p.B.Namespace != nil && !isOf(there.Link, p.B.Bridge):
		p.Advise(station, "another route matches first; check "+look, "packets to %s leave by %s instead of bridge %s", p.To, there.Link, p.B.Bridge).Root = true
	default:
		p.Good(station, "to %s by %s", p.To, there.Link)
		p.Out = there.Link
	}
	p.CheckReturnPath(p.To, there.Link)
	p.checkUplinks()
}

// checkForwarding reports whether the sysctls let the host forward packets from A's bridge, and
// adds a station with the result.
func (p *Path) checkForwarding() bool {
	family, key := "ipv4", "ipv4/ip_forward"
	if p.From.Is6() {
		family, key = "ipv6", "ipv6/conf/all/forwarding"
	}
	for _, key := range []string{key, family + "/conf/" + p.A.Bridge + "/forwarding"} {
		if value := kernel.Sysctl(p.Host.Namespace, key); value != "" && value != "1" {
			p.Bad("forwarding", report.SetSysctl(key, "1"), "the host does not forward %s packets: net/%s is %s", familyName(p.Is4()), key, value)
			return false
		}
	}
	p.Good("forwarding", "the host forwards %s packets", familyName(p.Is4()))
	return true
}

// isOf reports whether a link is a bridge or a VLAN link on that bridge.
func isOf(link, bridge string) bool { return link == bridge || strings.HasPrefix(link, bridge+".") }
