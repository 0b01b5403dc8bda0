package doctor

import (
	"context"
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
	watched := map[*setup.Namespace][]string{w.Host: {w.a.Port, w.a.Bridge}}
	order := []*setup.Namespace{w.Host}
	watch := func(e *End) {
		if _, is := watched[e.Namespace]; e.Namespace != nil && !is {
			watched[e.Namespace] = []string{e.Interface}
			order = append(order, e.Namespace)
		}
	}
	watch(w.a)
	watch(w.b)
	if w.b.Port != "" && w.b != w.a {
		watched[w.Host] = append(watched[w.Host], w.b.Port)
		if w.b.Bridge != w.a.Bridge {
			watched[w.Host] = append(watched[w.Host], w.b.Bridge)
		}
	}
	traces := map[*setup.Namespace]*trace{}
	stop := func() (sightings, error) {
		seen := sightings{}
		var first error
		for ns, t := range traces {
			verdicts, err := t.stop()
			if seen[ns] = verdicts; first == nil {
				first = err
			}
		}
		return seen, first
	}
	for _, ns := range order {
		t, err := startTrace(ns, p.flow(w.from), watched[ns]...)
		if err != nil {
			_, _ = stop() // the first error counts
			return err
		}
		traces[ns] = t
	}
	grown, failure := w.send(ctx, p, order)
	seen, err := stop()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil || w.Answered {
		return err
	}
	w.judged(seen, order)
	w.counted(grown)
	w.drifted()
	if o := w.Obstacle(); o != nil && strings.HasPrefix(o.Name, droppedBy) {
		w.note("our packet", "no answer")
		return nil
	}
	w.silence(seen, failure)
	return nil
}

// sightings are what nf_tables has said of our packets, by namespace.
type sightings map[*setup.Namespace][]verdict

// judged says what chains have let our packets pass, and which have dropped them.
func (w *walk) judged(seen sightings, order []*setup.Namespace) {
	said := map[string]bool{}
	for _, ns := range order {
		for _, v := range seen[ns] {
			if v.table == traceTable || said[v.where()] || v.dropped || ns != w.Host {
				continue
			}
			said[v.where()] = true
			w.good(v.where(), "lets it pass")
		}
	}
	for _, ns := range order {
		for _, v := range seen[ns] {
			if v.dropped && !said["drop "+v.where()] {
				said["drop "+v.where()] = true
				w.dropped(v, ns)
			}
		}
	}
}

// drifted adds what differs of the two from what ADD has made.
func (w *walk) drifted() {
	said := map[string]bool{}
	w.drift(w.a, said)
	if w.b != w.a {
		w.drift(w.b, said)
	}
}

// dropped names the rule that dropped our packet.
func (w *walk) dropped(v verdict, ns *setup.Namespace) {
	place := ""
	if ns != w.Host {
		place = " in the container's own namespace"
	}
	remedy, advice := w.remedyOf(v, ns)
	w.sad(fmt.Sprintf("%s %s%s", droppedBy, v.where(), place), remedy, "%s", v.text(ns))
	w.Stations[len(w.Stations)-1].Advice = advice
}

// remedyOf is what to do about a rule that drops, which depends on whose it is.
func (w *walk) remedyOf(v verdict, ns *setup.Namespace) (remedy string, advice bool) {
	family := families[v.family]
	theirs := "whoever wrote that rule has to let the packet pass: nft -a list chain " + v.place()
	if v.handle != 0 {
		theirs += fmt.Sprintf("; or take it away: nft delete rule %s handle %d", v.place(), v.handle)
	}
	byIPTables := slices.Contains([]string{"ip", "ip6"}, family) && v.table == "filter"
	switch {
	case v.table == "bridgeveth":
		return "that is what the network's configuration says: ingressPolicy, inbound, macspoofchk, ipspoofchk, ipMasq", true
	case ns != w.Host:
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
	return slices.ContainsFunc(s[ns], func(v verdict) bool { return v.table == traceTable && strings.HasPrefix(v.chain, way+" ") })
}

// translated says whether a rule for what leaves the host has taken our packet, as one of
// masquerade does.
func (s sightings) translated(ns *setup.Namespace) bool {
	return slices.ContainsFunc(s[ns], func(v verdict) bool {
		return strings.EqualFold(v.chain, "postrouting") && v.handle != 0 && v.family != unix.NFPROTO_BRIDGE
	})
}
