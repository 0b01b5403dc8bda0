package doctor

import (
	"net/netip"
	"slices"
	"strings"
)

// Drifted is a report on what differs of containers from what ADD has made of them, but for
// what was told already: what the host lacks is the same for all of a network. nil is that
// nothing does.
func (d *Doctor) Drifted(ends []*End, reports []*Report) *Report {
	r := &Report{}
	var names []string
	said := map[string]bool{}
	for _, report := range reports {
		for _, s := range report.Stations {
			said[s.What] = true
		}
	}
	for _, e := range ends {
		if r.drift(e, said) {
			names = append(names, e.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	r.From = strings.Join(names, ", ")
	return r
}

// drift adds what differs of a container, but for what was said.
func (r *Report) drift(e *End, said map[string]bool) (any bool) {
	station := "as ADD left " + e.Name
	for i, lines := range e.drift() {
		for _, line := range lines {
			switch {
			case said[line]:
				continue
			case i == 0:
				r.bad(station, "bvctl repair", "%s", line)
			default:
				r.sad(station, "undo that, or remove the container and make it again", "%s", line)
			}
			said[line], any = true, true
		}
	}
	return any
}

// drift is what differs on the host, and inside.
func (e *End) drift() [2][]string {
	if e.Drift != nil && !e.drifted {
		host, inside := e.Drift()
		e.host, e.inside, e.drifted = lines(host), lines(inside), true
	}
	return [2][]string{e.host, e.inside}
}

func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// lacksForward says whether the bridge's rules in FORWARD are gone that ADD has set.
func (e *End) lacksForward() bool { return e.lacks("rules of bridge " + e.Bridge + " ") }

// lacksGateway says whether the bridge's own address is gone that ADD has set.
func (e *End) lacksGateway(a netip.Addr) bool { return e.lacks("address " + a.String() + "/") }

// lacks says whether the host lacks what is told in a line that begins so.
func (e *End) lacks(prefix string) bool { return begins(e.drift()[0], prefix) }

// lacksInside is lacks of the container.
func (e *End) lacksInside(prefix string) bool { return begins(e.drift()[1], prefix) }

func begins(lines []string, prefix string) bool {
	return slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, prefix) })
}
