package checks

import (
	"cmp"
	"strconv"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// CheckForwardChains adds a station for each chain that a forwarded packet traverses, in the order
// of traversal. It skips bridgeveth's own chains. The trace of the doctor's packet shows later
// whether a chain drops the packet.
func (p *Path) CheckForwardChains() {
	forwarding := p.forwarding[kernel.FamilyOf(p.From)]
	if forwarding.err != nil {
		p.Note("forward chains", "%v", forwarding.err)
	}
	for _, c := range forwarding.chains {
		if c.Owner == setup.OwnerUs {
			continue
		}
		what := "priority " + strconv.Itoa(int(c.Priority)) + ", " + cmp.Or(string(c.Owner), "unknown owner")
		if c.Denies != "" {
			what += ", " + c.Denies
		}
		if station := "chain " + c.String(); c.Owner == setup.OwnerUnknown && c.Denies != "" {
			p.Note(station, "%s", what)
		} else {
			p.Good(station, "%s", what)
		}
	}
}
