package checks

import (
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// checkEcho checks whether a namespace answers pings. e is the container of the namespace, or nil
// for the host's namespace.
func (p *Path) checkEcho(ns *setup.Namespace, e *End) {
	key := "ipv4/icmp_echo_ignore_all"
	if p.To.Is6() {
		key = "ipv6/icmp/echo_ignore_all"
	}
	if kernel.Sysctl(ns, key) == "1" {
		p.Bad("test packet", commandIn(e, "sysctl -w %s", report.Setting(key, "0")), "%s does not answer pings (net/%s is 1), but may be reachable", nameOf(e), key)
	}
}
