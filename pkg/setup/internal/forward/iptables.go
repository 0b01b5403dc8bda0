package forward

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/xtables"
)

const (
	forwardChain = "BRIDGEVETH-FORWARD" // at most 28 letters: XT_EXTENSION_MAXNAMELEN in linux/netfilter/x_tables.h
	adminChain   = "BRIDGEVETH-ADMIN"
)

// filter is the state of the filter table of one family in one flavour of iptables. The flavours,
// nft and legacy, are the two implementations of iptables. Each flavour has its own FORWARD chain.
type filter struct {
	flavour string         // "nft" or "legacy"
	family  int            // AF_INET or AF_INET6
	forward []xtables.Rule // rules of FORWARD
	own     []xtables.Rule // rules of our chain
	inForce bool           // packets traverse the FORWARD chain of this table
	docker  bool           // the table has the chain dockerDrops
}

// readFilters reads the filter tables of a family in both flavours, nft and legacy. It starts no
// program.
func readFilters(n *netns.Namespace, family int) ([]filter, error) {
	byNFT, err := readNFT(n, family)
	if err != nil {
		return nil, err
	}
	byLegacy, err := readLegacy(n, family)
	if err != nil {
		return nil, err
	}
	return []filter{byNFT, byLegacy}, nil
}

// mentions reports whether BRIDGEVETH-FORWARD has a rule for a bridge.
func (t filter) mentions(bridge string) bool {
	return slices.ContainsFunc(t.own, func(r xtables.Rule) bool { return r.In == bridge || r.Out == bridge })
}

// links returns the names of the links for which BRIDGEVETH-FORWARD has rules.
func (t filter) links() (names []string) {
	for _, r := range t.own {
		if r.In != "" && !slices.Contains(names, r.In) {
			names = append(names, r.In)
		}
	}
	return names
}

// MissingIPTables looks for the rules of a bridge in each filter table that packets traverse
// (filter.inForce). It returns a difference for each table without these rules. If packets traverse
// no filter table, it returns a difference for the flavour (nft or legacy) that the host's iptables
// program writes, because dockerd may start later and deny packets in that table. On a host without
// an iptables program, it returns this difference only if the parameter must is true. The error is
// ErrNoIPTables if a table denies packets and no installed program can change the table.
func MissingIPTables(n *netns.Namespace, bridge string, families []int, must bool) (missing []plan.Difference, err error) {
	for _, family := range families {
		tables, err := readFilters(n, family)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(tables, func(t filter) bool { return t.inForce }) {
			tables = []filter{{family: family, inForce: true}}
			if _, err := findProgram(tables[0]); err != nil && !must {
				continue
			}
		}
		for _, t := range tables {
			if !t.inForce || t.accepts(bridge) {
				continue
			}
			if !t.byNetlink() {
				if _, err := findProgram(t); err != nil && t.denial() == "" {
					continue // the table accepts packets without our rules
				} else if err != nil {
					return nil, fmt.Errorf("add rules to %s, which denies packets (%s): %w", t, t.denial(), err)
				}
			}
			missing = append(missing, plan.Difference{
				What: fmt.Sprintf("rules of bridge %s in %s", bridge, t), Kind: plan.ForwardRules,
				Restore: func() error { return t.add(n, bridge) },
			})
		}
	}
	return missing, nil
}

// denial returns a text that says what denies packets in FORWARD: the policy, or the last rule. If
// neither denies packets, the text is "". denial works only for iptables-legacy, because only there
// the policy is the last element of t.forward.
func (t filter) denial() string {
	last := len(t.forward) - 1
	switch {
	case last >= 0 && t.forward[last].Target != xtables.Accept:
		return "policy DROP"
	case last > 0 && t.forward[last-1].Denies():
		return "last rule drop or reject"
	}
	return ""
}

// readLegacy reads the filter table of iptables-legacy, if packets traverse it.
func readLegacy(n *netns.Namespace, family int) (filter, error) {
	l, err := xtables.ReadLegacy(n, family, forwardChain, dockerDrops)
	_, docker := l.Chains[dockerDrops]
	return filter{flavour: "legacy", family: family, forward: l.Chains[xtables.Forward], own: l.Chains[forwardChain], inForce: l.InUse, docker: docker}, err
}

// String returns the program, the table and the chain, such as "iptables-nft filter FORWARD".
func (t filter) String() string {
	return fmt.Sprintf("%s %s %s", t.program(), xtables.Filter, xtables.Forward)
}

// program returns the name of the program for the table's family and flavour, such as ip6tables-nft.
func (t filter) program() string {
	name := "iptables"
	if t.family == unix.AF_INET6 {
		name = "ip6tables"
	}
	if t.flavour != "" {
		name += "-" + t.flavour
	}
	return name
}

// Ensure adds the rules that accept a bridge's packets in FORWARD, in every filter table that
// packets traverse. Each element of families is AF_INET or AF_INET6. Delete is the inverse.
// Processes that call Ensure at the same time need a lock (see Namespace.Lock).
func Ensure(n *netns.Namespace, bridge string, families ...int) error {
	missing, err := MissingIPTables(n, bridge, families, true)
	if err != nil {
		return err
	}
	return plan.RestoreAll(missing)
}

// Accepts reports whether every FORWARD chain of a family has the rules for a bridge in the right
// place. It changes nothing.
func Accepts(n *netns.Namespace, bridge string, family int) (bool, error) {
	missing, err := MissingIPTables(n, bridge, []int{family}, false)
	return len(missing) == 0, err
}

// Delete deletes the rules for a bridge. If no other bridge has rules in BRIDGEVETH-FORWARD, it
// also deletes this chain and the jump to it.
func Delete(n *netns.Namespace, bridge string) error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		tables, err := readFilters(n, family)
		errs = append(errs, err)
		for _, t := range tables {
			leftover, err := hasEmptyChain(n, t)
			if errs = append(errs, err); leftover || t.mentions(bridge) {
				errs = append(errs, t.remove(n, bridge))
			}
			for _, name := range t.links() {
				ours, err := bridges.IsBridgeOrVLAN(n, name, bridge)
				if ours && name != bridge {
					err = t.remove(n, name)
				}
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// byNetlink reports whether bridgeveth writes the table by netlink (iptables_nft_write.go). If not,
// it runs the program iptables. If the flavour of the table is unknown, the flavour of the host's
// iptables decides.
func (t filter) byNetlink() bool {
	if t.flavour != "" {
		return t.flavour == "nft"
	}
	path, err := findProgram(t)
	return err != nil || writesNFT(path)
}

// add adds the rules for a bridge to the table.
func (t filter) add(n *netns.Namespace, bridge string) error {
	if t.byNetlink() {
		return addNFT(n, t, bridge)
	}
	return addLegacy(n, t, bridge)
}

// remove is the inverse of add.
func (t filter) remove(n *netns.Namespace, bridge string) error {
	if t.byNetlink() {
		return removeNFT(n, t, bridge)
	}
	return removeLegacy(n, t, bridge)
}

// hasEmptyChain reports whether BRIDGEVETH-FORWARD exists without a rule for a bridge. A killed
// process may leave such a chain.
func hasEmptyChain(n *netns.Namespace, t filter) (bool, error) {
	if len(t.own) > 0 { // in iptables-legacy, even an empty chain has an entry at its end
		return !slices.ContainsFunc(t.own, func(r xtables.Rule) bool { return r.In != "" || r.Out != "" }), nil
	}
	if !t.inForce || t.flavour == "legacy" {
		return false, nil
	}
	return nft.HasChain(n, t.family, xtables.Filter, forwardChain)
}
