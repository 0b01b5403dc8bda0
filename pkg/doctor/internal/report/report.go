package report

import (
	"fmt"
	"strings"
)

// DroppedBy is the beginning of the name of each station that dropped the doctor's own packet.
const DroppedBy = "dropped by"

// State is the state of a station.
type State string

// The states of a station. Only a Bad station keeps packets from arriving.
const (
	Good State = "good"
	Bad  State = "bad"
	Note State = "note"
)

// Station is a place on a packet's path, such as a link, a route or a chain, with the result of its
// check.
type Station struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	What   string `json:"what"`
	Remedy string `json:"remedy,omitempty"` // a command that fixes the problem, or advice if Advice is set
	Advice bool   `json:"advice,omitempty"`

	Always bool `json:"-"` // stays bad even if the doctor's packet is answered
	Root   bool `json:"-"` // this station causes the problems at other stations
}

// Report is the path of one packet. If no packet was sent, To is "", and From says what the report
// is about.
type Report struct {
	From     string    `json:"from"`
	To       string    `json:"to,omitempty"`
	Stations []Station `json:"stations"`
	Answered bool      `json:"answered"` // the doctor's own packet was answered
}

// Path returns the names of both ends of the path, or only From if To is "".
func (r *Report) Path() string {
	if r.To == "" {
		return r.From
	}
	return r.From + " → " + r.To
}

// Obstacle returns the bad station that explains why the packet does not arrive: the first bad
// station with Root set. If there is none, Obstacle returns the station that dropped the doctor's
// packet, or else the first bad station. Obstacle returns nil if no station is bad.
func (r *Report) Obstacle() *Station {
	for _, is := range []func(*Station) bool{
		func(s *Station) bool { return s.Root },
		func(s *Station) bool { return strings.HasPrefix(s.Name, DroppedBy) },
		func(*Station) bool { return true },
	} {
		for i := range r.Stations {
			if s := &r.Stations[i]; s.State == Bad && is(s) {
				return s
			}
		}
	}
	return nil
}

// Dropped reports whether the station that Obstacle returns has dropped the doctor's packet.
func (r *Report) Dropped() bool {
	o := r.Obstacle()
	return o != nil && strings.HasPrefix(o.Name, DroppedBy)
}

// Healthy reports whether the report has no bad station.
func (r *Report) Healthy() bool { return r.Obstacle() == nil }

// add adds a station to the report and returns a pointer to it. The pointer is valid until the next
// station is added. add replaces line breaks, because a container could otherwise forge a station
// with a table name that contains a line break.
func (r *Report) add(s Station) *Station {
	for _, text := range []*string{&s.Name, &s.What, &s.Remedy} {
		*text = strings.ReplaceAll(*text, "\n", "; ")
	}
	r.Stations = append(r.Stations, s)
	return &r.Stations[len(r.Stations)-1]
}

// Good adds a station at which nothing is wrong.
func (r *Report) Good(name, format string, args ...any) {
	r.add(Station{Name: name, State: Good, What: fmt.Sprintf(format, args...)})
}

// Note adds a station that drops no packets, but that a person should know about.
func (r *Report) Note(name, format string, args ...any) {
	r.add(Station{Name: name, State: Note, What: fmt.Sprintf(format, args...)})
}

// Bad adds a station that keeps packets from arriving. The parameter command is a shell command
// that fixes the problem.
func (r *Report) Bad(name, command, format string, args ...any) *Station {
	return r.add(Station{Name: name, State: Bad, What: fmt.Sprintf(format, args...), Remedy: command})
}

// Advise adds a station that keeps packets from arriving. The parameter advice is a text for a
// person.
func (r *Report) Advise(name, advice, format string, args ...any) *Station {
	return r.add(Station{Name: name, State: Bad, What: fmt.Sprintf(format, args...), Remedy: advice, Advice: true})
}

// Downgrade turns bad stations into notes, because the doctor's packet was answered in spite of
// them. Stations with the field Always set stay bad.
func (r *Report) Downgrade() {
	for i, s := range r.Stations {
		if s.State == Bad && !s.Always {
			r.Stations[i].State = Note
		}
	}
}
