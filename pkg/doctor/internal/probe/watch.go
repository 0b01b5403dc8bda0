package probe

import (
	"errors"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Post is a network namespace in which packets are watched, with the links on which packets come
// in.
type Post struct {
	Namespace *setup.Namespace
	Links     []string
}

// Posts is a list of posts. It contains each namespace only once.
type Posts []Post

// Add adds the links to the post of a namespace. It creates the post if there is none.
func (p *Posts) Add(ns *setup.Namespace, links ...string) {
	i := slices.IndexFunc(*p, func(at Post) bool { return at.Namespace.Same(ns) })
	if i < 0 {
		i = len(*p)
		*p = append(*p, Post{Namespace: ns})
	}
	for _, link := range links {
		if !slices.Contains((*p)[i].Links, link) {
			(*p)[i].Links = append((*p)[i].Links, link)
		}
	}
}

// Sighting contains what nf_tables reported about the doctor's packets in one namespace.
type Sighting struct {
	Namespace *setup.Namespace
	Verdicts  []Verdict
}

// Sightings has one Sighting for each namespace.
type Sightings []Sighting

// Watch calls the function send, which must send packets through the socket e. Watch returns what
// nf_tables reported about these packets and their answers in each namespace of posts.
func Watch(posts Posts, e *Echo, send func()) (seen Sightings, err error) {
	var traces []*trace
	for _, at := range posts {
		t, failed := startTrace(at.Namespace, e, at.Links...)
		if failed != nil {
			err = failed
			break
		}
		traces = append(traces, t)
	}
	if err == nil {
		send()
	}
	for i, t := range traces {
		verdicts, failed := t.stop()
		seen = append(seen, Sighting{posts[i].Namespace, verdicts})
		err = errors.Join(err, failed)
	}
	return seen, err
}

// of returns the verdicts of one namespace.
func (s Sightings) of(ns *setup.Namespace) []Verdict {
	i := slices.IndexFunc(s, func(at Sighting) bool { return at.Namespace.Same(ns) })
	if i < 0 {
		return nil
	}
	return s[i].Verdicts
}

// Decided returns the verdicts of other programs' rules and policies in a namespace. It omits the
// verdicts of the trace's own rules.
func (s Sightings) Decided(ns *setup.Namespace) []Verdict {
	return slices.DeleteFunc(slices.Clone(s.of(ns)), func(v Verdict) bool { return v.Table == traceTable })
}

// Seen reports whether a packet of the given kind (Request or Reply) came to a namespace.
func (s Sightings) Seen(ns *setup.Namespace, packet string) bool {
	return slices.ContainsFunc(s.of(ns), func(v Verdict) bool { return v.Table == traceTable && strings.HasPrefix(v.Chain, packet+" ") })
}

// CameBy lists the indexes of the links by which packets of the given kind (Request or Reply) came
// into a namespace.
func (s Sightings) CameBy(ns *setup.Namespace, packet string) (links []int) {
	for _, v := range s.of(ns) {
		if v.Table == traceTable && v.Chain == packet+" prerouting" && v.Family != "bridge" {
			links = append(links, v.in)
		}
	}
	return links
}

// Translated reports whether a rule may have translated the packet's source address in a namespace.
// In a trace, a masquerade rule looks like a rule that accepts the packet. So Translated returns
// true if any rule in a postrouting chain has accepted or dropped the packet.
func (s Sightings) Translated(ns *setup.Namespace) bool {
	return slices.ContainsFunc(s.of(ns), func(v Verdict) bool {
		return strings.EqualFold(v.Chain, "postrouting") && v.Handle != 0 && v.Family != "bridge"
	})
}
