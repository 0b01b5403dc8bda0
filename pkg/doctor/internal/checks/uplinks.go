package checks

import (
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
)

// checkUplinks adds a note if requests to the host ports of container A may come in by several
// uplinks. The host routes an answer by its destination, so all answers to a client leave by one
// uplink, and routers may drop them.
func (p *Path) checkUplinks() {
	family := kernel.FamilyOf(p.To)
	if !p.Beyond() || slices.ContainsFunc(kernel.Rules(p.Host.Namespace, family), func(r kernel.Rule) bool { return r.Marked }) {
		return // a rule for marked packets may already select the right uplink
	}
	if ports, err := p.Host.HostPorts(); err != nil || len(ports[p.ports[p.A.Port].Key]) == 0 {
		return
	}
	links, _ := kernel.Uplinks(p.Host.Namespace, family) // without uplinks there is nothing to note
	for _, link := range links {
		if link != p.Out {
			p.Note("uplinks", "requests to its host ports that come in by %s are answered by %s, so routers may drop the answers. "+
				"Mark each connection by its uplink (CONNMARK), and add a routing rule for the mark (%s rule add fwmark)", link, p.Out, report.IP(p.To))
		}
	}
}
