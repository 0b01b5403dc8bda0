package forward

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-iptables/iptables"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/xtables"
)

// xtablesLock is the file that iptables-legacy locks while it changes a table.
const xtablesLock = "/run/xtables.lock"

// xtablesWait is how long awaitXtables, and then each iptables process, waits for the lock, in seconds.
const xtablesWait = 10

// awaitXtables waits until no process holds the lock of iptables-legacy. iptables also waits for the lock, but its
// error does not name the process that holds the lock.
func awaitXtables() error {
	lock, err := flock.Acquire(xtablesLock, flock.Exclusive, xtablesWait*time.Second)
	if errors.Is(err, os.ErrNotExist) { // no iptables-legacy has run since the boot
		return nil
	}
	lock.Unlock()
	return err
}

// addLegacy adds the rules for a bridge to the table of iptables-legacy. It runs iptables, because
// this table cannot be written by netlink.
func addLegacy(n *netns.Namespace, t filter, bridge string) error {
	return withProgram(n, t, func(ipt *iptables.IPTables) error {
		for _, chain := range []string{forwardChain, adminChain} {
			exists, err := ipt.ChainExists(xtables.Filter, chain)
			if err == nil && !exists {
				err = ipt.NewChain(xtables.Filter, chain)
			}
			if err != nil {
				return err
			}
		}
		if slices.Index(t.own, toAdmin) != 0 {
			if err := moveTo(ipt, 1, toAdmin); err != nil {
				return err
			}
		}
		ahead := forwardRules(bridge)
		if !t.hasForeign() {
			for _, r := range ahead {
				if err := ipt.AppendUnique(xtables.Filter, forwardChain, r.Args()...); err != nil {
					return err
				}
			}
			ahead = nil
		}
		if t.docker {
			ahead = append(isolationRules(bridge), ahead...)
		}
		for _, r := range slices.Backward(ahead) {
			if err := moveTo(ipt, 2, r); err != nil {
				return err
			}
		}
		return t.placeJump(ipt)
	})
}

// moveTo deletes a rule from BRIDGEVETH-FORWARD and inserts the same rule at a position.
func moveTo(ipt *iptables.IPTables, position int, r xtables.Rule) error {
	if err := ipt.DeleteIfExists(xtables.Filter, forwardChain, r.Args()...); err != nil {
		return err
	}
	return ipt.Insert(xtables.Filter, forwardChain, position, r.Args()...)
}

// placeJump inserts the jump to BRIDGEVETH-FORWARD into FORWARD, directly after the jumps to
// chainsBefore, or at the top if there is no such jump. Our jump then comes before a REJECT at the
// end of FORWARD, such as that of ufw, but after the administrator's rules.
func (t filter) placeJump(ipt *iptables.IPTables) error {
	list, err := ipt.List(xtables.Filter, xtables.Forward) // the policy, then the rules
	if err != nil {
		return err
	}
	jump := []string{"-j", forwardChain}
	position, others, found := 1, 0, 0
	for _, line := range list {
		head, target, _ := strings.Cut(line, " -j ")
		switch {
		case head == "-A "+xtables.Forward && target == forwardChain:
			found++
		case strings.HasPrefix(head, "-A "):
			others++
			if slices.Contains(chainsBefore, target) {
				position = others + 1
			}
		}
	}
	if found == 1 && t.jumps() {
		return nil // rules of other programs that come before the jump stay there
	}
	for range found {
		if err := ipt.Delete(xtables.Filter, xtables.Forward, jump...); err != nil {
			return err
		}
	}
	return ipt.Insert(xtables.Filter, xtables.Forward, position, jump...)
}

// removeLegacy is the inverse of addLegacy.
func removeLegacy(n *netns.Namespace, t filter, bridge string) error {
	return withProgram(n, t, func(ipt *iptables.IPTables) error {
		for _, r := range ownRules(bridge) {
			if !slices.Contains(t.own, r) {
				continue // iptables fails if the target chain of the rule does not exist
			}
			if err := ipt.DeleteIfExists(xtables.Filter, forwardChain, r.Args()...); err != nil {
				return err
			}
		}
		left, err := ipt.List(xtables.Filter, forwardChain) // the first line is the chain, the others are its rules
		if err != nil || len(left) > 2 || len(left) == 2 && !strings.HasSuffix(left[1], " -j "+adminChain) {
			return err
		}
		// BRIDGEVETH-FORWARD is deleted last. If this process is killed earlier, the next DEL finds
		// the chain and completes the deletion.
		if len(left) == 2 {
			if err := ipt.Delete(xtables.Filter, forwardChain, toAdmin.Args()...); err != nil {
				return err
			}
		}
		if err := deleteAdminChain(ipt); err != nil {
			return err
		}
		if err := ipt.DeleteIfExists(xtables.Filter, xtables.Forward, "-j", forwardChain); err != nil {
			return err
		}
		return deleteUnused(ipt, forwardChain)
	})
}

// deleteAdminChain deletes the administrator's chain, unless the chain has rules or a rule of
// another program jumps to it.
func deleteAdminChain(ipt *iptables.IPTables) error {
	exists, err := ipt.ChainExists(xtables.Filter, adminChain)
	if err != nil || !exists {
		return err
	}
	rules, err := ipt.List(xtables.Filter, adminChain)
	if err != nil || len(rules) > 1 {
		return err
	}
	return deleteUnused(ipt, adminChain)
}

// deleteUnused deletes a chain, unless a rule jumps to it.
func deleteUnused(ipt *iptables.IPTables, chain string) error {
	err := ipt.DeleteChain(xtables.Filter, chain)
	if err != nil && (strings.Contains(err.Error(), "busy") || strings.Contains(err.Error(), "Too many links")) {
		return nil // these are the messages of iptables-nft and iptables-legacy for a chain that is in use
	}
	return err
}

// withProgram calls f with the iptables program that writes table t.
func withProgram(n *netns.Namespace, t filter, f func(*iptables.IPTables) error) error {
	path, err := findProgram(t)
	if err != nil {
		return err
	}
	family := iptables.ProtocolIPv4
	if t.family == unix.AF_INET6 {
		family = iptables.ProtocolIPv6
	}
	if err := awaitXtables(); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return n.Do(func() error {
		ipt, err := iptables.New(iptables.Path(path), iptables.IPFamily(family), iptables.Timeout(xtablesWait))
		if err == nil {
			err = f(ipt)
		}
		if err != nil {
			return fmt.Errorf("run %s: %w", path, singleLine(err))
		}
		return nil
	})
}

// singleLine joins the lines of an error of iptables, without blank lines and without the advice to
// run "iptables -h".
func singleLine(err error) error {
	var printed *iptables.Error
	if !errors.As(err, &printed) {
		return err
	}
	lines := slices.DeleteFunc(strings.Split(printed.Error(), "\n"), func(line string) bool {
		return strings.TrimSpace(line) == "" || strings.HasPrefix(line, "Try `")
	})
	return errors.New(strings.Join(lines, ", "))
}
