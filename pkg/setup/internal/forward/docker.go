package forward

import (
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/xtables"
)

// The names of Docker's chains in the table filter of iptables.
const (
	dockerUser     = "DOCKER-USER"              // holds the administrator's rules
	dockerForward  = "DOCKER-FORWARD"           // Docker 28.0.1 and newer; jumps to dockerIsolates
	dockerIsolates = "DOCKER-ISOLATION-STAGE-1" // drops packets between Docker's networks, together with dockerDrops
	dockerDrops    = "DOCKER-ISOLATION-STAGE-2" // dockerIsolates jumps here; drops packets that leave through a bridge of Docker
)

// The names of the chains of the reference plugin firewall in the table filter of iptables.
const (
	cniForward = "CNI-FORWARD" // begins with a jump to cniAdmin
	cniAdmin   = "CNI-ADMIN"   // holds the administrator's rules
)

// dockerTable is the name of Docker's table in nf_tables, which exists if Docker's firewall backend
// is nftables (Docker 29).
const dockerTable = "docker-bridges"

// chainsBefore contains the chains to which FORWARD must jump before it jumps to
// BRIDGEVETH-FORWARD. With this order, packets that Docker or the administrator denies stay denied.
// dockerd moves its jumps to the top of FORWARD at every start.
var chainsBefore = []string{dockerUser, dockerForward, dockerIsolates, cniForward}

// isolationRules returns the rules that drop packets from the bridge to Docker's containers, except
// replies and connections to published ports. These rules must come before forwardRules. Docker
// isolates its own networks in the same way. In Docker 27 and older, only the policy of FORWARD
// isolates Docker's containers from other bridges. Without isolationRules, forwardRules would
// override this policy.
func isolationRules(bridge string) []xtables.Rule {
	return []xtables.Rule{
		{In: bridge, States: xtables.StatesOpen, Target: xtables.Accept},
		{In: bridge, Target: dockerDrops},
	}
}

// isolates reports whether BRIDGEVETH-FORWARD has isolationRules, in their order and before the
// rule that accepts all packets from the bridge.
func (t filter) isolates(bridge string) bool {
	last := -1
	for _, want := range append(isolationRules(bridge), xtables.Rule{In: bridge, Target: xtables.Accept}) {
		at := slices.Index(t.own, want)
		if at <= last {
			return false
		}
		last = at
	}
	return true
}

// jumps reports whether FORWARD jumps to BRIDGEVETH-FORWARD in the right place: after the jumps to
// chainsBefore, and before any rule that denies all packets. A rule with a match may come before
// our jump, because its author may want the rule to apply to our packets.
func (t filter) jumps() bool {
	at, last := -1, t.lastBefore()
	for i, r := range t.forward {
		if r == toOwn {
			at = i
		}
	}
	return at > last && !slices.ContainsFunc(t.forward[last+1:at], xtables.Rule.Denies)
}

// closedBefore returns the chain among chainsBefore that FORWARD jumps to last, if a rule that denies
// all packets comes before this jump. BRIDGEVETH-FORWARD gets no packets then, because the jump to
// BRIDGEVETH-FORWARD must come after the jumps to chainsBefore. Otherwise closedBefore returns "".
func (t filter) closedBefore() (chain string) {
	last := t.lastBefore()
	if !slices.ContainsFunc(t.forward[:last+1], xtables.Rule.Denies) {
		return ""
	}
	return t.forward[last].Target
}

// lastBefore returns the position in FORWARD of the last jump to one of chainsBefore, or -1 if
// there is none.
func (t filter) lastBefore() (at int) {
	at = -1
	for i, r := range t.forward {
		if slices.Contains(chainsBefore, r.Target) {
			at = i
		}
	}
	return at
}

// jumpMayFollow reports whether a jump to one of chainsBefore may be among the rules of FORWARD
// that were not read. The parameter rules holds the rules that were read.
func jumpMayFollow(n *netns.Namespace, family int, rules []xtables.Rule) (bool, error) {
	leadsTo := func(chain string) bool { return slices.Contains(rules, xtables.Rule{Target: chain}) }
	for _, chain := range chainsBefore {
		if leadsTo(chain) || chain == dockerIsolates && leadsTo(dockerForward) {
			continue
		}
		if exists, err := nft.HasChain(n, family, xtables.Filter, chain); err != nil || exists {
			return exists, err
		}
	}
	return false, nil
}
