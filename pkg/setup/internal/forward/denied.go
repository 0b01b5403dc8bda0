package forward

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// ErrDenied is returned if a chain drops a network's packets and only the owner of the chain can
// change this.
var ErrDenied = errors.New("packets of its containers are dropped")

// CheckDenied returns ErrDenied if a chain of another program would drop the network's packets even
// after AttachPort has added all its rules. If the network has both IPv4 and IPv6, CheckDenied
// checks only IPv4, because a host without IPv6 routes may drop all IPv6 packets. If the network
// has no address families yet, CheckDenied returns the error only if both IPv4 and IPv6 are denied.
func CheckDenied(n *netns.Namespace, net *plan.Network) error {
	families := net.Families()
	if len(families) > 0 {
		return checkDenied(n, net, families[0])
	}
	err := checkDenied(n, net, unix.AF_INET)
	if err == nil {
		return nil
	}
	if err6 := checkDenied(n, net, unix.AF_INET6); err6 == nil || !errors.Is(err6, ErrDenied) {
		return err6
	}
	return err
}

// checkDenied does the work of CheckDenied for one family. It looks for a chain of an unknown owner
// that accepts no new connection and is not in net.ForwardChains. It also looks in FORWARD for a
// rule that denies all packets and comes before the jumps to chainsBefore, such as DOCKER-USER. Our
// rules get no packets then, because the jump to BRIDGEVETH-FORWARD must come after these jumps.
func checkDenied(n *netns.Namespace, net *plan.Network, family int) error {
	chains, err := Chains(n, family)
	if err != nil {
		return err
	}
	for _, c := range chains {
		if c.Owner == OwnerUnknown && c.Denies != "" && !c.Opens && !slices.Contains(net.ForwardChains, c.Chain) {
			return fmt.Errorf(`%w by chain %s of nf_tables (%s): accept them there, or set "forwardChains": ["%s"]`, ErrDenied, c.Chain, c.Denies, c.Chain)
		}
	}
	tables, err := readFilters(n, family)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if chain := t.closedBefore(); chain != "" {
			admin := dockerUser
			if chain == cniForward {
				admin = cniAdmin
			}
			return fmt.Errorf("%w by a rule of %s above the jump to %s, which denies all packets: move the rule below this jump, or into %s", ErrDenied, t, chain, admin)
		}
	}
	return nil
}
