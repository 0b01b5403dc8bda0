package checks

import (
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// common lists the kinds of queueing disciplines that a kernel gives to links by default.
var common = []string{"noqueue", "pfifo_fast", "fq_codel", "fq", "mq"}

// checkQdiscs adds a note for each queueing discipline of a link that may drop packets. e is the
// container that has the link, or nil for a link of the host.
func (p *Path) checkQdiscs(ns *setup.Namespace, link string, e *End) {
	for _, kind := range kernel.Qdiscs(ns, link) {
		if !slices.Contains(common, kind) {
			p.Note("qdisc of "+nameOf(e), "%s has a qdisc of kind %s, which may delay or drop packets: %s", link, kind, commandIn(e, "tc -s qdisc show dev %s", link))
		}
	}
}
