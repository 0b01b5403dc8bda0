package forward

import (
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/xtables"
)

// readNFT reads FORWARD and BRIDGEVETH-FORWARD in the filter table of iptables-nft. It may omit
// rules at the end of FORWARD (see readForward).
func readNFT(n *netns.Namespace, family int) (t filter, err error) {
	t = filter{flavour: "nft", family: family}
	if t.forward, err = readForward(n, family); err != nil {
		return t, err
	}
	if t.inForce = len(t.forward) > 0; !t.inForce {
		t.inForce, err = nft.HasChain(n, family, xtables.Filter, xtables.Forward)
	}
	if err == nil && t.inForce {
		t.own, err = xtables.Rules(n, family, xtables.Filter, forwardChain, xtables.All)
	}
	if err == nil {
		t.docker, err = t.hasDocker(n)
	}
	return t, err
}

// hasDocker reports whether the table has the chain dockerDrops. It asks the kernel only if FORWARD
// jumps to one of chainsBefore, as it does whenever Docker runs.
func (t filter) hasDocker(n *netns.Namespace) (bool, error) {
	if t.lastBefore() < 0 {
		return false, nil
	}
	return nft.HasChain(n, t.family, xtables.Filter, dockerDrops)
}

// someRules is the number of rules of FORWARD that readForward always reads. The kernel sends about
// this number of rules in two messages.
const someRules = 100

// readForward reads the rules of FORWARD, which may have thousands of rules. It stops when it has
// read both someRules rules and the jump to BRIDGEVETH-FORWARD. But if a jump to one of
// chainsBefore may come later, it reads all rules, because our jump must come after such a jump.
func readForward(n *netns.Namespace, family int) ([]xtables.Rule, error) {
	jumped := false
	rules, err := xtables.Rules(n, family, xtables.Filter, xtables.Forward, func(seen []xtables.Rule) bool {
		last := len(seen) - 1
		jumped = jumped && last > 0 || seen[last] == toOwn
		return len(seen) < someRules || !jumped
	})
	if err != nil || len(rules) < someRules || !jumped {
		return rules, err
	}
	hidden, err := jumpMayFollow(n, family, rules)
	if err == nil && hidden {
		rules, err = xtables.Rules(n, family, xtables.Filter, xtables.Forward, xtables.All)
	}
	return rules, err
}
