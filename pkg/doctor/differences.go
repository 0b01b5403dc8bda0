package doctor

import (
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/checks"
)

// Differences reports what has changed at the ends since ADD. Several ends may have the same
// change, such as a missing rule of their bridge. Differences reports each change only once, and
// skips changes that an earlier report contains. The returned list has one report, or is empty if
// there are no changes to report.
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
