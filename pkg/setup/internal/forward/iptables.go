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

	dockerForward  = "DOCKER-FORWARD"           // from Docker 28.0.1 on it leads to dockerIsolates
	dockerIsolates = "DOCKER-ISOLATION-STAGE-1" // keeps Docker's networks apart
	dockerDrops    = "DOCKER-ISOLATION-STAGE-2" // what leaves by any of Docker's bridges
)

// Bits of state_mask in xt_conntrack_mtinfo3, linux/netfilter/xt_conntrack.h.
const (
	stateEstablished = 1 << 1
	stateRelated     = 1 << 2
	stateDNAT        = 1 << 7

	statesOpen = stateRelated | stateEstablished | stateDNAT
)

// before are the chains behind whose jumps ours stands, so that what Docker and
// the administrator (DOCKER-USER is his) deny stays denied. dockerd puts them at
// the top at every start, where they stay before ours. CNI-FORWARD is of the reference
// plugin firewall, and begins with a jump to CNI-ADMIN, the administrator's.
var before = []string{"DOCKER-USER", dockerForward, dockerIsolates, "CNI-FORWARD"}

// rule is what we know of an iptables rule: enough for ours, and for jumps.
type rule struct {
	in, out string // interfaces; "" is any
	states  uint16 // of conntrack; 0 is any
	target  string // a chain or a verdict
	other   bool   // it matches on something else besides
	native  bool   // it looks at conntrack as nft(8) does, and never iptables: a saved ruleset was loaded
}

// forwardRules lists the rules of a bridge: a fixed number, however many
// containers are on it.
func forwardRules(bridge string) []rule {
	return []rule{
		{in: bridge, out: bridge, target: accept},         // bridged, where br_netfilter shows them to iptables
		{out: bridge, states: statesOpen, target: accept}, // replies, and published ports
		{in: bridge, target: accept},                      // outgoing
		{out: bridge, target: accept},                     // new inbound: containers are reachable, as Kubernetes asks
	}
}

// isolationRules lists those ahead of them that keep Docker's containers from ours, but
// for replies and published ports, as Docker keeps its own networks apart. Up to Docker 27
// nothing but the policy of FORWARD does so, which our rules would get around.
func isolationRules(bridge string) []rule {
	return []rule{
		{in: bridge, states: statesOpen, target: accept},
		{in: bridge, target: dockerDrops},
	}
}

// args is the rule as arguments of iptables(8).
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

// xtables is the filter table of one family in one of the two implementations
// of iptables, each of which has a FORWARD chain of its own.
type xtables struct {
	flavour string // "nft" or "legacy"
	family  int    // AF_INET or AF_INET6
	forward []rule // chain FORWARD
	own     []rule // our chain
	inForce bool   // it has a FORWARD chain that packets pass
	docker  bool   // it has the chain by which Docker keeps networks apart
}

// readXtables reads a family's tables in all flavours, without a process.
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

// toAdmin is the first rule of our chain: what the administrator writes into the chain
// that it leads to is heard before we accept anything.
var toAdmin = rule{target: adminChain}

// toOwn is the jump from FORWARD to our chain.
var toOwn = rule{target: forwardChain}

// mentions says whether the table has any rule of a bridge.
func (t xtables) mentions(bridge string) bool {
	return slices.ContainsFunc(t.own, func(r rule) bool { return r.in == bridge || r.out == bridge })
}

// links lists those that the table has rules of.
func (t xtables) links() (names []string) {
	for _, r := range t.own {
		if r.in != "" && !slices.Contains(names, r.in) {
			names = append(names, r.in)
		}
	}
	return names
}

// MissingIPTables lists the tables in force that lack a bridge's rules. Where no
// iptables is in force yet, the rules go to the flavour that the host would use:
// a dockerd that starts later finds them there. must says that its absence matters. The error is
// ErrNoIPTables where a table denies, and only a program that is missing could change it.
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
					continue // packets pass without
				} else if err != nil {
					return nil, fmt.Errorf("add rules to %s, which denies packets (%s): %w", t, t.denial(), err)
				}
			}
			missing = append(missing, plan.Difference{
				What:    fmt.Sprintf("rules of bridge %s in %s", bridge, t),
				Restore: func() error { return addForward(n, t, bridge) },
			})
		}
	}
	return missing, nil
}

// denial is what denies packets that no rule of FORWARD is about, in iptables-legacy, whose list
// ends with the policy; "" if nothing does.
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

// String is the chain that packets pass, by the program that shows it.
func (t xtables) String() string {
	return fmt.Sprintf("%s %s %s", t.program(), filterTable, forwardBase)
}

// program is the name of the iptables for the table's family and flavour: ip6tables-nft.
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

// Ensure lets the packets of a bridge through FORWARD, in every flavour of
// iptables in force, for the families given (AF_INET, AF_INET6). DeleteForward is
// its inverse. Two processes at once need a lock: see AttachPort.
func Ensure(n *netns.Namespace, bridge string, families ...int) error {
	missing, err := MissingIPTables(n, bridge, families, true)
	if err != nil {
		return err
	}
	return plan.RestoreAll(missing)
}

// Accepts says whether every FORWARD chain of a family has the rules of a bridge,
// where they belong. It changes nothing.
func Accepts(n *netns.Namespace, bridge string, family int) (bool, error) {
	missing, err := MissingIPTables(n, bridge, []int{family}, false)
	return len(missing) == 0, err
}

// Delete takes back the rules of a bridge and, with the last of them, our
// chain and the jump to it.
func Delete(n *netns.Namespace, bridge string) error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		tables, err := readXtables(n, family)
		errs = append(errs, err)
		for _, t := range tables {
			hollow, err := hollow(n, t)
			if errs = append(errs, err); hollow || t.mentions(bridge) {
				errs = append(errs, removeForward(n, t, bridge))
			}
			for _, name := range t.links() {
				ours, err := bridges.IsBridgeOrVLAN(n, name, bridge)
				if ours && name != bridge {
					err = removeForward(n, t, name)
				}
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// hollow says whether our chain is there without a rule of a bridge: a process was
// killed while it made the chain, or took it away.
func hollow(n *netns.Namespace, t xtables) (bool, error) {
	if len(t.own) > 0 { // legacy has an entry that ends the chain
		return !slices.ContainsFunc(t.own, func(r rule) bool { return r.in != "" || r.out != "" }), nil
	}
	if !t.inForce || t.flavour == "legacy" {
		return false, nil
	}
	return nft.HasChain(n, t.family, filterTable, forwardChain)
}
