package forward

import (
	"cmp"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/xtables"
)

// forwardRules returns the rules for a bridge in BRIDGEVETH-FORWARD.
func forwardRules(bridge string) []xtables.Rule {
	return []xtables.Rule{
		{In: bridge, Target: xtables.Accept},  // packets from containers, also bridged ones, which br_netfilter passes to iptables
		{Out: bridge, Target: xtables.Accept}, // packets to containers, also new connections, which Kubernetes requires
	}
}

// ownRules returns all rules for a bridge, including those that only older versions of bridgeveth added.
func ownRules(bridge string) []xtables.Rule {
	former := []xtables.Rule{{In: bridge, Out: bridge, Target: xtables.Accept}, {Out: bridge, States: xtables.StatesOpen, Target: xtables.Accept}}
	return slices.Concat(forwardRules(bridge), isolationRules(bridge), former)
}

// toAdmin is the first rule of BRIDGEVETH-FORWARD: the jump to BRIDGEVETH-ADMIN. The
// administrator's rules in that chain therefore take effect before our rules.
var toAdmin = xtables.Rule{Target: adminChain}

// toOwn is the jump from FORWARD to BRIDGEVETH-FORWARD.
var toOwn = xtables.Rule{Target: forwardChain}

// accepts reports whether BRIDGEVETH-FORWARD has the rules for a bridge, and FORWARD jumps to this
// chain in the right place.
func (t filter) accepts(bridge string) bool { return t.jumps() && t.has(bridge) }

// has reports whether BRIDGEVETH-FORWARD has the rules for a bridge, after the jump to
// BRIDGEVETH-ADMIN and before the rules of other programs.
func (t filter) has(bridge string) bool {
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
	if t.docker && !t.isolates(bridge) {
		return false
	}
	return !slices.ContainsFunc(t.own[:end], foreign)
}

// hasForeign reports whether BRIDGEVETH-FORWARD has a rule of another program.
func (t filter) hasForeign() bool {
	own := t.own
	if t.flavour == "legacy" && len(own) > 0 {
		own = own[:len(own)-1] // without the entry at the end of the chain
	}
	return slices.ContainsFunc(own, foreign)
}

// foreign reports whether a rule in BRIDGEVETH-FORWARD belongs to another program.
func foreign(r xtables.Rule) bool {
	bridge := cmp.Or(r.In, r.Out)
	return r != toAdmin && r != toTransit && (bridge == "" || !slices.Contains(ownRules(bridge), r))
}
