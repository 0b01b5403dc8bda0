package doctor

import (
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/checks"
)

// Differences reports what differs at the ends from the result of ADD, without what the reports have
// already: what is missing on the host is the same for all containers of a network. The list is empty
// if nothing differs.
func (d *Doctor) Differences(ends []*End, reports []*Report) []*Report {
	said := map[string]bool{}
	for _, r := range reports {
		for _, s := range r.Stations {
			said[s.What] = true
		}
	}
	p := &checks.Path{Report: &Report{}}
	var names []string
	for _, e := range ends {
		if p.AddDifferences(e, said) {
			names = append(names, e.Name)
		}
	}
	p.Report.From = strings.Join(names, ", ")
	return nonEmpty(p.Report)
}
