// Package doctor finds out why a packet does not arrive: it walks a packet's way from a
// container to another or to an address, looks at each station, and proves the verdict by
// a packet of its own. Of one that is lost, the kernel tells the way through nf_tables
// (nft_trace).
//
// Nothing is changed but for a table of nf_tables that traces the packet, which is gone
// afterwards: only one doctor at a time may work on a host. CAP_NET_ADMIN, CAP_NET_RAW and
// CAP_SYS_ADMIN are needed in the host's namespace.
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
	Routes    []setup.Route  // that the container was given, of the main table
	// Drift says what differs from what ADD has made, on the host and inside, a line each.
	// nil where nobody knows what that was. It is asked at most once.
	Drift func() (host, inside error)

	drifted      bool
	host, inside []string
}

// Address is the first address of a family.
func (e *End) Address(is4 bool) (netip.Prefix, bool) {
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

	always bool // it is bad even if our packet was answered
	root   bool // if it is bad, what drops packets elsewhere does so because of it
}

// Report is a walk: its stations in the packet's order. Without To it is about what From
// is called, and no packet was sent.
type Report struct {
	From     string    `json:"from"`
	To       string    `json:"to,omitempty"`
	Stations []Station `json:"stations"`
	Answered bool      `json:"answered"` // the packet of our own was
}

// Way is the two ends in words, or the one.
func (r *Report) Way() string {
	if r.To == "" {
		return r.From
	}
	return r.From + " → " + r.To
}

// Obstacle is the station that keeps the packet from arriving: what led it astray, what
// dropped our own packet if that is known, or else the first that is bad. nil is none.
func (r *Report) Obstacle() *Station {
	for _, is := range []func(*Station) bool{
		func(s *Station) bool { return s.root },
		func(s *Station) bool { return strings.HasPrefix(s.Name, droppedBy) },
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

// Healthy says whether nothing is wrong.
func (r *Report) Healthy() bool { return r.Obstacle() == nil }

// add adds a station in lines of its own: a container chooses names in its namespace, and one of
// several lines would look like another station.
func (r *Report) add(s Station) {
	for _, text := range []*string{&s.Name, &s.What, &s.Remedy} {
		*text = strings.ReplaceAll(*text, "\n", "; ")
	}
	r.Stations = append(r.Stations, s)
}

func (r *Report) good(name, format string, args ...any) {
	r.add(Station{Name: name, State: Good, What: fmt.Sprintf(format, args...)})
}

func (r *Report) note(name, format string, args ...any) {
	r.add(Station{Name: name, State: Note, What: fmt.Sprintf(format, args...)})
}

// bad notes what is wrong, with a command that cures it.
func (r *Report) bad(name, command, format string, args ...any) {
	r.add(Station{Name: name, State: Bad, What: fmt.Sprintf(format, args...), Remedy: command})
}

// sad notes what is wrong, with advice to a person.
func (r *Report) sad(name, advice, format string, args ...any) {
	r.add(Station{Name: name, State: Bad, What: fmt.Sprintf(format, args...), Remedy: advice, Advice: true})
}

// isRoot marks the last station: if it is bad, what drops packets elsewhere does so because of it.
func (r *Report) isRoot() { r.Stations[len(r.Stations)-1].root = true }

// settle makes notes of what was bad, once our packet was answered: it is in nobody's way
// then. What always is remains.
func (r *Report) settle() {
	for i, s := range r.Stations {
		if s.State == Bad && !s.always {
			r.Stations[i].State = Note
		}
	}
}

// Doctor looks at one host, as it is when he first looks.
type Doctor struct {
	Host *setup.Host
	Ends []*End // all containers of the host, among which duplicates are looked for
	// PodRanges are those of containers on all nodes, which keep their addresses between nodes.
	PodRanges []netip.Prefix

	known *survey
}
