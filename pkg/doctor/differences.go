package doctor

import (
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/checks"
)

// Differences returns a report of what has changed at the ends since ADD. It skips the differences
// that reports already contain, because all containers of a network have the same differences on
// the host. The list is empty if there is nothing to report.
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
