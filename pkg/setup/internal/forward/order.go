package forward

import (
	"cmp"
	"slices"
)

// accepts reports whether the table has the rules for a bridge, in the right place.
func (t xtables) accepts(bridge string) bool { return t.jumps() && t.has(bridge) }

// jumps reports whether FORWARD jumps to our chain, below the jumps to chainsBefore and above a rule that
// denies all packets. A rule with a match may be above our jump: somebody may mean our packets.
func (t xtables) jumps() bool {
	at, last := -1, t.lastBefore()
	for i, r := range t.forward {
		if r == toOwn {
			at = i
		}
	}
	return at > last && !slices.ContainsFunc(t.forward[last+1:at], rule.denies)
}

// closed reports whether a rule above one of chainsBefore denies all packets. Our jump must be below it.
func (t xtables) closed() bool { return slices.ContainsFunc(t.forward[:t.lastBefore()+1], rule.denies) }

// lastBefore returns the position in FORWARD of the last jump to one of chainsBefore, -1 without any.
func (t xtables) lastBefore() (at int) {
	at = -1
	for i, r := range t.forward {
		if slices.Contains(chainsBefore, r.target) {
			at = i
		}
	}
	return at
}

// denies reports whether the rule denies all packets that reach it.
func (r rule) denies() bool { return r == rule{target: deny} || r == rule{target: reject} }

// has reports whether our chain has the rules for a bridge, below the jump to the administrator's chain and
// above the rules of others.
func (t xtables) has(bridge string) bool {
	if slices.Index(t.own, toAdmin) != 0 {
		return false
	}
	end := 0
	for _, want := range forwardRules(bridge) {
		at := slices.Index(t.own, want)
		if at < 0 {
			return false
		}
		end = max(end, at)
	}
	if t.docker { // in this order, and above the rule that accepts all outgoing packets
		last := -1
		for _, want := range append(isolationRules(bridge), rule{in: bridge, target: accept}) {
			at := slices.Index(t.own, want)
			if at <= last {
				return false
			}
			last = at
		}
	}
	return !slices.ContainsFunc(t.own[:end], foreign)
}

// hasForeign reports whether our chain has a rule of somebody else.
func (t xtables) hasForeign() bool {
	own := t.own
	if t.flavour == "legacy" && len(own) > 0 {
		own = own[:len(own)-1] // without the entry at the end of the chain
	}
	return slices.ContainsFunc(own, foreign)
}

// foreign reports whether a rule in our chain is not ours, for any bridge.
func foreign(r rule) bool {
	bridge := cmp.Or(r.in, r.out)
	return r != toAdmin && r != toTransit && (bridge == "" || !slices.Contains(forwardRules(bridge), r) && !slices.Contains(isolationRules(bridge), r))
}
