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
)

const (
	filterTable  = "filter"
	forwardBase  = "FORWARD"
	forwardChain = "BRIDGEVETH-FORWARD" // at most 28 letters: XT_EXTENSION_MAXNAMELEN in linux/netfilter/x_tables.h
	adminChain   = "BRIDGEVETH-ADMIN"
	accept       = "ACCEPT"
	deny         = "DROP"
	reject       = "REJECT"
)

// xtables is the state of the filter table of one family in one flavour of iptables. The flavours,
// nft and legacy, are the two implementations of iptables. Each flavour has its own FORWARD chain.
type xtables struct {
	flavour string // "nft" or "legacy"
	family  int    // AF_INET or AF_INET6
	forward []rule // rules of FORWARD
	own     []rule // rules of our chain
	inForce bool   // packets traverse the FORWARD chain of this table
	docker  bool   // the table has the chain dockerDrops
}

// readXtables reads the filter tables of a family in both flavours, nft and legacy. It starts no
// program.
func readXtables(n *netns.Namespace, family int) ([]xtables, error) {
	byNFT, err := readNFT(n, family)
	if err != nil {
		return nil, err
	}
	byLegacy, err := readLegacy(n, family)
	if err != nil {
		return nil, err
	}
	return []xtables{byNFT, byLegacy}, nil
}

// mentions reports whether BRIDGEVETH-FORWARD has a rule for a bridge.
func (t xtables) mentions(bridge string) bool {
	return slices.ContainsFunc(t.own, func(r rule) bool { return r.in == bridge || r.out == bridge })
}

// links returns the names of the links for which BRIDGEVETH-FORWARD has rules.
func (t xtables) links() (names []string) {
	for _, r := range t.own {
		if r.in != "" && !slices.Contains(names, r.in) {
			names = append(names, r.in)
		}
	}
	return names
}

// MissingIPTables looks for the rules of a bridge in each filter table that packets traverse
// (xtables.inForce). It returns a difference for each table without these rules. If packets traverse
// no filter table, it returns a difference for the flavour (nft or legacy) that the host's iptables
// program writes, because dockerd may start later and deny packets in that table. On a host without
// an iptables program, it returns this difference only if the parameter must is true. The error is
// ErrNoIPTables if a table denies packets and no installed program can change the table.
func MissingIPTables(n *netns.Namespace, bridge string, families []int, must bool) (missing []plan.Difference, err error) {
	for _, family := range families {
		tables, err := readXtables(n, family)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(tables, func(t xtables) bool { return t.inForce }) {
			tables = []xtables{{family: family, inForce: true}}
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
func (t xtables) denial() string {
	last := len(t.forward) - 1
	switch {
	case last >= 0 && t.forward[last].target != accept:
		return "policy DROP"
	case last > 0 && t.forward[last-1].denies():
		return "last rule drop or reject"
	}
	return ""
}

// String returns the program, the table and the chain, such as "iptables-nft filter FORWARD".
func (t xtables) String() string {
	return fmt.Sprintf("%s %s %s", t.program(), filterTable, forwardBase)
}

// program returns the name of the program for the table's family and flavour, such as ip6tables-nft.
func (t xtables) program() string {
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
		tables, err := readXtables(n, family)
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
func (t xtables) byNetlink() bool {
	if t.flavour != "" {
		return t.flavour == "nft"
	}
	path, err := findProgram(t)
	return err != nil || writesNFT(path)
}

// add adds the rules for a bridge to the table.
func (t xtables) add(n *netns.Namespace, bridge string) error {
	if t.byNetlink() {
		return addNFT(n, t, bridge)
	}
	return addLegacy(n, t, bridge)
}

// remove is the inverse of add.
func (t xtables) remove(n *netns.Namespace, bridge string) error {
	if t.byNetlink() {
		return removeNFT(n, t, bridge)
	}
	return removeLegacy(n, t, bridge)
}

// hasEmptyChain reports whether BRIDGEVETH-FORWARD exists without a rule for a bridge. A killed
// process may leave such a chain.
func hasEmptyChain(n *netns.Namespace, t xtables) (bool, error) {
	if len(t.own) > 0 { // in iptables-legacy, even an empty chain has an entry at its end
		return !slices.ContainsFunc(t.own, func(r rule) bool { return r.in != "" || r.out != "" }), nil
	}
	if !t.inForce || t.flavour == "legacy" {
		return false, nil
	}
	return nft.HasChain(n, t.family, filterTable, forwardChain)
}
