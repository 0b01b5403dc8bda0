package doctor

import (
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/checks"
)

// Differences returns a list with one report: what has changed at these ends since ADD. It skips
// changes that the given reports already contain, because all containers of a network have the
// changes on the host in common. The list is empty if there is no other change.
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
