package forward

import (
	"cmp"
	"slices"
)

// Bits of state_mask in xt_conntrack_mtinfo3, linux/netfilter/xt_conntrack.h.
const (
	stateEstablished = 1 << 1
	stateRelated     = 1 << 2
	stateDNAT        = 1 << 7

	statesOpen = stateRelated | stateEstablished | stateDNAT
)

// rule holds the parts of an iptables rule that bridgeveth uses.
type rule struct {
	in, out string // interfaces; "" matches every interface
	states  uint16 // conntrack states that match; 0 matches every state
	target  string // a chain or a verdict
	other   bool   // the rule has a match that the other fields cannot represent
	native  bool   // the rule matches conntrack by an expression of nft(8), because nft(8) has loaded it from a saved ruleset
}

// forwardRules returns the rules for a bridge in BRIDGEVETH-FORWARD.
func forwardRules(bridge string) []rule {
	return []rule{
		{in: bridge, target: accept},  // packets from containers, also bridged ones, which br_netfilter passes to iptables
		{out: bridge, target: accept}, // packets to containers, also new connections, which Kubernetes requires
	}
}

// ownRules returns all rules for a bridge, including those that only older versions of bridgeveth added.
func ownRules(bridge string) []rule {
	former := []rule{{in: bridge, out: bridge, target: accept}, {out: bridge, states: statesOpen, target: accept}}
	return slices.Concat(forwardRules(bridge), isolationRules(bridge), former)
}

// args returns the rule as arguments of iptables(8).
func (r rule) args() (args []string) {
	if r.in != "" {
		args = append(args, "-i", r.in)
	}
	if r.out != "" {
		args = append(args, "-o", r.out)
	}
	if r.states != 0 {
		args = append(args, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED,DNAT")
	}
	return append(args, "-j", r.target)
}

// toAdmin is the first rule of BRIDGEVETH-FORWARD: the jump to BRIDGEVETH-ADMIN. The
// administrator's rules in that chain therefore take effect before our rules.
var toAdmin = rule{target: adminChain}

// toOwn is the jump from FORWARD to BRIDGEVETH-FORWARD.
var toOwn = rule{target: forwardChain}

// accepts reports whether BRIDGEVETH-FORWARD has the rules for a bridge, and FORWARD jumps to this
// chain in the right place.
func (t xtables) accepts(bridge string) bool { return t.jumps() && t.has(bridge) }

// denies reports whether the rule denies all packets that reach it.
func (r rule) denies() bool { return r == rule{target: deny} || r == rule{target: reject} }

// has reports whether BRIDGEVETH-FORWARD has the rules for a bridge, after the jump to
// BRIDGEVETH-ADMIN and before the rules of other programs.
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
	if t.docker && !t.isolates(bridge) {
		return false
	}
	return !slices.ContainsFunc(t.own[:end], foreign)
}

// hasForeign reports whether BRIDGEVETH-FORWARD has a rule of another program.
func (t xtables) hasForeign() bool {
	own := t.own
	if t.flavour == "legacy" && len(own) > 0 {
		own = own[:len(own)-1] // without the entry at the end of the chain
	}
	return slices.ContainsFunc(own, foreign)
}

// foreign reports whether a rule in BRIDGEVETH-FORWARD belongs to another program.
func foreign(r rule) bool {
	bridge := cmp.Or(r.in, r.out)
	return r != toAdmin && r != toTransit && (bridge == "" || !slices.Contains(ownRules(bridge), r))
}
