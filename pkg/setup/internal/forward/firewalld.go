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

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// firewalldTable of nf_tables is the daemon's own: to let a bridge's packets pass it has to
// be asked (pkg/firewalld).
const firewalldTable = "firewalld"

var (
	// ErrNoFirewalld says that firewalld is asked for and does not run, or cannot be
	// asked.
	ErrNoFirewalld = errors.New(`start it, or choose another "forward"`)
	// ErrStrictForwardPorts says that firewalld drops what goes to host ports.
	ErrStrictForwardPorts = errors.New("firewalld drops what goes to published ports: set StrictForwardPorts=no in firewalld.conf, or publish the port by firewalld itself")
)

// MissingFirewalld looks whether firewalld has the network's links in a zone. Whatever zone
// an administrator has put them into is his decision.
func MissingFirewalld(n *netns.Namespace, net *plan.Network) (missing []plan.Difference, err error) {
	inForce, err := hasNFTTable(n, nft.FamilyINet, firewalldTable)
	if err != nil {
		return nil, err
	}
	if !inForce {
		if net.Forward == plan.ForwardFirewalld {
			return nil, fmt.Errorf("firewalld does not run here with its nf_tables backend: %w", ErrNoFirewalld)
		}
		return nil, nil
	}
	if err := checkStrict(net); err != nil {
		return nil, err
	}
	zones, err := nftRules(n, nft.FamilyINet, firewalldTable, "filter_FORWARD_ZONES", all)
	if err != nil {
		return nil, err
	}
	for _, link := range net.Links() {
		if slices.ContainsFunc(zones, func(r rule) bool { return r.in == link && r.target != "" }) {
			continue // as firewalld of 1.0 and newer writes it: no need to ask
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

// hasNFTTable says whether a table exists.
func hasNFTTable(n *netns.Namespace, family int, table string) (bool, error) {
	return nft.Exists(n, unix.NFT_MSG_GETTABLE, family, nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(table)))
}

// checkStrict says whether firewalld lets what goes to host ports pass.
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

// askFirewalld has "bvctl firewalld" ask the daemon, and returns the words of its answer.
// The bvctl beside our own program is preferred.
func askFirewalld(question ...string) (answer []string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	path, err := ProgramPath("bvctl", filepath.Dir(self))
	if err != nil {
		return nil, fmt.Errorf("firewalld is in force, and bvctl, which asks it, is neither beside the plugin nor in PATH: install it: %w", ErrNoFirewalld)
	}
	out, err := exec.Command(path, append([]string{"firewalld"}, question...)...).Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(failed.Stderr))
	}
	if err != nil {
		return nil, fmt.Errorf("firewalld is in force, and cannot be asked: %w: %w", err, ErrNoFirewalld)
	}
	return strings.Fields(string(out)), nil
}

// DeleteFromFirewalld takes a bridge, and its VLAN links, out of our zone. A daemon that
// does not run has nothing to forget.
func DeleteFromFirewalld(n *netns.Namespace, bridge string) error {
	inForce, err := hasNFTTable(n, nft.FamilyINet, firewalldTable)
	if err != nil || !inForce {
		return err
	}
	links, err := askFirewalld("links")
	if err != nil {
		return nil //nolint:nilerr // it has no such zone, or does not run
	}
	var errs []error
	for _, link := range links {
		ours, err := bridges.IsBridgeOrVLAN(n, link, bridge)
		if ours {
			_, err = askFirewalld("release", link)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
