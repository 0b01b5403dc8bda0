package forward

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/xtables"
)

// firewalldTable is the name of firewalld's table in nf_tables. Only firewalld may change this
// table, so pkg/firewalld asks firewalld for changes.
const firewalldTable = "firewalld"

var (
	// ErrNoFirewalld is returned if firewalld is needed and does not run, or does not answer.
	ErrNoFirewalld = errors.New("firewalld cannot be asked")
	// ErrStrictForwardPorts is returned if firewalld drops packets to host ports.
	ErrStrictForwardPorts = errors.New("firewalld drops packets to published ports: set StrictForwardPorts=no in firewalld.conf, or publish the port by firewalld itself")
)

// MissingFirewalld returns a difference for each link of the network (the bridge and the VLAN link)
// that is in no zone of firewalld. Every zone is sufficient, because an administrator may have
// chosen the zone.
func MissingFirewalld(n *netns.Namespace, net *plan.Network) (missing []plan.Difference, err error) {
	inForce, err := nft.HasTable(n, nft.FamilyINet, firewalldTable)
	if err != nil {
		return nil, err
	}
	if !inForce {
		if net.Forward == plan.ForwardFirewalld {
			return nil, fmt.Errorf(`%w: it does not run here with its nf_tables backend; start it, or choose another "forward"`, ErrNoFirewalld)
		}
		return nil, nil
	}
	if err := checkStrict(net); err != nil {
		return nil, err
	}
	zones, err := xtables.Rules(n, nft.FamilyINet, firewalldTable, "filter_FORWARD_ZONES", xtables.All)
	if err != nil {
		return nil, err
	}
	for _, link := range net.Links() {
		if slices.ContainsFunc(zones, func(r xtables.Rule) bool { return r.In == link && r.Target != "" }) {
			continue // firewalld 1.0 and newer has a rule with this comparison for each link in a zone
		}
		zone, err := askFirewalld("zone", link)
		if err != nil {
			return nil, err
		}
		if len(zone) == 0 {
			missing = append(missing, plan.Difference{
				What:    fmt.Sprintf("%s in zone bridgeveth of firewalld", link),
				Restore: func() error { _, err := askFirewalld("bind", link); return err },
			})
		}
	}
	return missing, nil
}

// checkStrict returns ErrStrictForwardPorts if the network has host ports and firewalld drops packets to
// them.
func checkStrict(net *plan.Network) error {
	if len(net.HostPorts) == 0 {
		return nil
	}
	strict, err := askFirewalld("strict")
	if err == nil && slices.Equal(strict, []string{"true"}) {
		err = ErrStrictForwardPorts
	}
	return err
}

// askFirewalld runs "bvctl firewalld", which asks the daemon, and returns the words of the answer. It
// prefers the bvctl in the folder of the running program.
func askFirewalld(question ...string) (answer []string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	path, err := ProgramPath("bvctl", filepath.Dir(self))
	if err != nil {
		return nil, fmt.Errorf(`%w: the plugin needs bvctl for this, and bvctl is neither in the plugin's folder nor in PATH, /usr/sbin, /sbin or /usr/local/sbin; install bvctl, or choose another "forward"`, ErrNoFirewalld)
	}
	out, err := exec.Command(path, append([]string{"firewalld"}, question...)...).Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(failed.Stderr))
	}
	if err != nil {
		return nil, fmt.Errorf(`%w: %w; start firewalld, or choose another "forward"`, ErrNoFirewalld, err)
	}
	return strings.Fields(string(out)), nil
}

// DeleteFromFirewalld removes a bridge and its VLAN links from our zone. An error of firewalld
// is no error of DeleteFromFirewalld, because DEL must also succeed without firewalld. firewalld
// removes the links from the zone at its next reload anyway.
func DeleteFromFirewalld(n *netns.Namespace, bridge string) error {
	inForce, err := nft.HasTable(n, nft.FamilyINet, firewalldTable)
	if err != nil || !inForce {
		return err
	}
	links, err := askFirewalld("links")
	if err != nil {
		return nil //nolint:nilerr // the zone does not exist, or firewalld does not answer
	}
	var errs []error
	for _, link := range links {
		ours, err := bridges.IsBridgeOrVLAN(n, link, bridge)
		if ours {
			_, _ = askFirewalld("release", link) // after a flush, firewalld fails to delete its rules
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
