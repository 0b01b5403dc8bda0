package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// droppedBy is how stations begin that are known to have dropped our own packet.
const droppedBy = "dropped by"

// smallest is the size of our packet with its IP header, in bytes: what every link with
// IPv6 takes would be 1280, and this is less than any MTU.
const smallest = 84

// prove sends a packet and says what became of it.
func (w *walk) prove(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p, err := newProbe(w.a.Namespace, w.from, w.to)
	if err != nil {
		w.drifted()
		w.note("our packet", "%v", err)
		return nil
	}
	defer p.close()
	if w.Answered, _ = p.ask(smallest); !w.Answered { // what fails will do so again
		if err := w.investigate(ctx); err != nil {
			return err
		}
	}
	if w.Answered {
		w.settle()
		w.good("our packet", "answered")
		w.fullSize(p)
	}
	return nil
}

// investigate sends more packets, of a connection of their own, since chains of type nat
// see the first of one alone, and finds out what becomes of them.
func (w *walk) investigate(ctx context.Context) error {
	p, err := newProbe(w.a.Namespace, w.from, w.to)
	if err != nil {
		return err
	}
	defer p.close()
	posts := w.posts()
	var grown map[counter][]int
	var failure error
	seen, err := watch(posts, p.flow(w.from), func() { grown, failure = w.send(ctx, p, posts) })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil || w.Answered {
		return err
	}
	w.judged(seen)
	w.counted(grown, seen)
	w.drifted()
	if o := w.Obstacle(); o != nil && strings.HasPrefix(o.Name, droppedBy) {
		w.note("our packet", "no answer")
		return nil
	}
	w.silence(seen, failure)
	return nil
}

// post is a namespace where our packets are watched, and its links that they come in by.
type post struct {
	ns    *setup.Namespace
	links []string
}

// posts are the host's namespace, and those of the two ends, which may be one and the same.
func (w *walk) posts() (all []post) {
	add := func(ns *setup.Namespace, links ...string) {
		i := slices.IndexFunc(all, func(p post) bool { return p.ns.Same(ns) })
		if i < 0 {
			i = len(all)
			all = append(all, post{ns: ns})
		}
		for _, link := range links {
			if !slices.Contains(all[i].links, link) {
				all[i].links = append(all[i].links, link)
			}
		}
	}
	for _, e := range w.containers() {
		add(w.Host.Namespace, e.Port, e.Bridge)
		add(e.Namespace, e.Interface)
	}
	return all
}

// sightings are what nf_tables has said of our packets, by namespace.
type sightings []sighting

type sighting struct {
	ns       *setup.Namespace
	verdicts []verdict
}

// watch has nf_tables of all posts tell what becomes of our packets, which send sends.
func watch(posts []post, f flow, send func()) (seen sightings, err error) {
	var traces []*trace
	for _, at := range posts {
		t, failed := startTrace(at.ns, f, at.links...)
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
		seen = append(seen, sighting{posts[i].ns, verdicts})
		err = errors.Join(err, failed)
	}
	return seen, err
}

// of are those of a namespace.
func (s sightings) of(ns *setup.Namespace) []verdict {
	i := slices.IndexFunc(s, func(at sighting) bool { return at.ns.Same(ns) })
	if i < 0 {
		return nil
	}
	return s[i].verdicts
}

// judged says what chains of the host have let our packets pass, and which have dropped
// them, here or there.
func (w *walk) judged(seen sightings) {
	said := map[string]bool{}
	for _, v := range seen.of(w.Host.Namespace) {
		if v.table == traceTable || said[v.where()] || v.dropped {
			continue
		}
		said[v.where()] = true
		w.good(v.where(), "lets it pass")
	}
	for _, at := range seen {
		for _, v := range at.verdicts {
			if v.dropped && !said["drop "+v.where()] {
				said["drop "+v.where()] = true
				w.dropped(v, at.ns)
			}
		}
	}
}

// drifted adds what differs of the two from what ADD has made.
func (w *walk) drifted() {
	said := map[string]bool{}
	for _, e := range w.containers() {
		w.drift(e, said)
	}
}

// dropped names the rule that dropped our packet.
func (w *walk) dropped(v verdict, ns *setup.Namespace) {
	place := ""
	if ns != w.Host.Namespace {
		place = " in the container's own namespace"
	}
	remedy, advice := w.remedyOf(v, ns)
	w.sad(fmt.Sprintf("%s %s%s", droppedBy, v.where(), place), remedy, "%s", v.text(ns))
	w.Stations[len(w.Stations)-1].Advice = advice
}

// enter is what a command for a namespace begins with; "" for the host.
func (w *walk) enter(ns *setup.Namespace) string {
	for _, e := range w.containers() {
		if ns != w.Host.Namespace && e.Namespace.Same(ns) {
			return e.in("")
		}
	}
	return ""
}

// remedyOf is what to do about a rule that drops, which depends on whose it is.
func (w *walk) remedyOf(v verdict, ns *setup.Namespace) (remedy string, advice bool) {
	family := families[v.family]
	nft := w.enter(ns) + "nft "
	theirs := "whoever wrote that rule has to let the packet pass: " + nft + "-a list chain " + v.place()
	if v.handle != 0 {
		theirs += fmt.Sprintf("; or take it away: %sdelete rule %s handle %d", nft, v.place(), v.handle)
	}
	byIPTables := slices.Contains([]string{"ip", "ip6"}, family) && v.table == "filter"
	switch {
	case v.table == "bridgeveth":
		return "that is what the network's configuration says: ingressPolicy, inbound, macspoofchk, ipspoofchk, ipMasq", true
	case ns != w.Host.Namespace:
		return theirs, true
	case family == "bridge":
		return theirs + "; ebtables -L has it too, if that made it", true
	case family == "netdev":
		return theirs, true
	case byIPTables && (w.a.lacksForward() || w.b.lacksForward()) || v.table == "firewalld" && len(w.a.drift()[0]) > 0:
		return "bvctl repair", false
	case v.table == "firewalld":
		return `give the network "forward": "auto" (the default), and run: bvctl repair; or it is a rule of yours: firewall-cmd --list-all-policies`, true
	case !byIPTables:
		return theirs + `; or give the network "forwardChains", and run: bvctl repair`, true
	case v.chain == "FORWARD" || strings.HasPrefix(v.chain, "ufw"):
		return w.openUp(theirs), true
	}
	return theirs, true
}

// openUp is what to do about FORWARD: our rules get packets past it, unless theirs stand
// ahead of ours.
func (w *walk) openUp(theirs string) string {
	if accepts, err := w.Host.AcceptsForward(w.a.Bridge, familyOf(w.from)); err == nil && accepts {
		return "that rule stands ahead of ours; " + theirs
	}
	return `give the network "forward": "auto" (the default), and run: bvctl repair`
}

// seen says whether our packet, or its answer, came to a namespace.
func (s sightings) seen(ns *setup.Namespace, way string) bool {
	return slices.ContainsFunc(s.of(ns), func(v verdict) bool { return v.table == traceTable && strings.HasPrefix(v.chain, way+" ") })
}

// cameBy lists the links, by their index, by which our packet or its answer came to a namespace.
func (s sightings) cameBy(ns *setup.Namespace, way string) (links []int) {
	for _, v := range s.of(ns) {
		if v.table == traceTable && v.chain == way+" prerouting" && v.family != unix.NFPROTO_BRIDGE {
			links = append(links, v.in)
		}
	}
	return links
}

// translated says whether a rule for what leaves the host has taken our packet, as one of
// masquerade does.
func (s sightings) translated(ns *setup.Namespace) bool {
	return slices.ContainsFunc(s.of(ns), func(v verdict) bool {
		return strings.EqualFold(v.chain, "postrouting") && v.handle != 0 && v.family != unix.NFPROTO_BRIDGE
	})
}
