package checks

import (
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// checkARP checks whether a link answers ARP requests for its own addresses, and adds a note if the
// link has an XDP program. e is the container that has the link, or nil for a link of the host.
func (p *Path) checkARP(ns *setup.Namespace, link string, e *End) {
	station := "ARP of " + nameOf(e)
	l, err := p.Link(ns, link)
	if err != nil {
		return // CheckInterface or CheckBridge has reported this
	}
	if l.Attrs().RawFlags&unix.IFF_NOARP != 0 {
		p.Bad(station, commandIn(e, "ip link set %s arp on", link), "%s neither sends nor answers ARP requests (NOARP)", link)
	}
	for _, key := range []string{"all", link} {
		key = "ipv4/conf/" + key + "/arp_ignore"
		if value := kernel.Sysctl(ns, key); p.Is4() && value >= "3" && len(value) == 1 { // the values 1 and 2 let the link answer all requests on this path
			p.Bad(station, commandIn(e, "sysctl -w %s", report.Setting(key, "0")), "%s does not answer ARP requests: net/%s is %s", link, key, value)
		}
	}
	if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
		p.Note("XDP of "+nameOf(e), "an XDP program is attached to %s, and may drop packets", link)
	}
}
