// Package doctor finds out why a packet does not arrive: it walks a packet's way from a
// container to another or to an address, looks at each station, and proves the verdict by
// a packet of its own, whose way through nf_tables the kernel tells (nft_trace).
//
// Nothing is changed but for a table of nf_tables that traces the packet, which is gone
// afterwards: only one doctor at a time may work on a host. CAP_NET_ADMIN and CAP_SYS_ADMIN are needed in the host's namespace.
package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// End is one end of a packet's way.
type End struct {
	Name      string           // as a person knows it
	Namespace *setup.Namespace // of the container; nil beyond the host
	Interface string           // in the container
	Port      string           // the link on the host, and the bridge that it belongs on
	Bridge    string
	Addresses []netip.Prefix // that the container was given, or that of what is beyond the host
	// Drift says what differs from what ADD has made, on the host and inside, a line each.
	// nil where nobody knows what that was.
	Drift func() (host, inside error)
}

// address is the first address of a family.
func (e *End) address(is4 bool) (netip.Prefix, bool) {
	i := slices.IndexFunc(e.Addresses, func(a netip.Prefix) bool { return a.Addr().Is4() == is4 })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return e.Addresses[i], true
}

// State says how a station is.
type State string

// Of the three, Bad alone keeps packets from arriving; a Note is worth to be known.
const (
	Good State = "good"
	Bad  State = "bad"
	Note State = "note"
)

// Station is a place on a packet's way.
type Station struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	What   string `json:"what"`
	Remedy string `json:"remedy,omitempty"` // a command that cures it, or advice where Advice is set
	Advice bool   `json:"advice,omitempty"`
}

// Report is a walk: its stations in the packet's order.
type Report struct {
	From     string    `json:"from"`
	To       string    `json:"to"`
	Stations []Station `json:"stations"`
	Answered bool      `json:"answered"` // the packet of our own was
}

// Obstacle is the station that keeps the packet from arriving: what dropped our own packet
// if that is known, or else the first that is bad. nil is none.
func (r *Report) Obstacle() *Station {
	var first *Station
	for i := range r.Stations {
		s := &r.Stations[i]
		if s.State != Bad {
			continue
		}
		if first == nil || strings.HasPrefix(s.Name, droppedBy) {
			first = s
		}
	}
	return first
}

// Healthy says whether nothing is wrong.
func (r *Report) Healthy() bool { return r.Obstacle() == nil }

func (r *Report) good(name, format string, args ...any) {
	r.Stations = append(r.Stations, Station{Name: name, State: Good, What: fmt.Sprintf(format, args...)})
}

func (r *Report) note(name, format string, args ...any) {
	r.Stations = append(r.Stations, Station{Name: name, State: Note, What: fmt.Sprintf(format, args...)})
}

// bad notes what is wrong, with a command that cures it.
func (r *Report) bad(name, command, format string, args ...any) {
	r.Stations = append(r.Stations, Station{Name: name, State: Bad, What: fmt.Sprintf(format, args...), Remedy: command})
}

// sad notes what is wrong, with advice to a person.
func (r *Report) sad(name, advice, format string, args ...any) {
	r.Stations = append(r.Stations, Station{Name: name, State: Bad, What: fmt.Sprintf(format, args...), Remedy: advice, Advice: true})
}

// Doctor looks at one host.
type Doctor struct {
	Host *setup.Namespace
	Ends []*End // all containers of the host, among which duplicates are looked for
}
