package forward

import (
	"cmp"
	"slices"
)

// accepts says whether the table has a bridge's rules, where they belong.
func (t xtables) accepts(bridge string) bool { return t.jumps() && t.has(bridge) }

// jumps says whether FORWARD leads to our chain, behind those of before, and ahead of a
// rule that denies everything. One with a match may be meant for our packets.
func (t xtables) jumps() bool {
	at, behind := -1, t.lastBefore()
	for i, r := range t.forward {
		if r == toOwn {
			at = i
		}
	}
	return at > behind && !slices.ContainsFunc(t.forward[behind+1:at], rule.denies)
}

// closed says whether a rule denies everything where we cannot get ahead of it: in front
// of one of before.
func (t xtables) closed() bool { return slices.ContainsFunc(t.forward[:t.lastBefore()+1], rule.denies) }

// lastBefore is where the last of before stands in FORWARD, -1 without any.
func (t xtables) lastBefore() (at int) {
	at = -1
	for i, r := range t.forward {
		if slices.Contains(before, r.target) {
			at = i
		}
	}
	return at
}

// denies says whether the rule denies all packets that get to it.
func (r rule) denies() bool { return r == rule{target: deny} || r == rule{target: reject} }

// has says whether our chain has a bridge's rules, behind the administrator's and ahead
// of what somebody else has put into it.
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
	if t.docker { // in their order, and ahead of what lets everything out
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

// hasForeign says whether there is a rule in our chain that is not ours.
func (t xtables) hasForeign() bool {
	own := t.own
	if t.flavour == "legacy" && len(own) > 0 {
		own = own[:len(own)-1] // the entry that ends the chain
	}
	return slices.ContainsFunc(own, foreign)
}

// foreign says whether a rule in our chain is not ours, for whichever bridge.
func foreign(r rule) bool {
	bridge := cmp.Or(r.in, r.out)
	return r != toAdmin && (bridge == "" || !slices.Contains(forwardRules(bridge), r) && !slices.Contains(isolationRules(bridge), r))
}
