// Package repair has the command "bvctl repair".
package repair

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// New returns "bvctl repair".
func New(inv *inventory.Inventory) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "repair", Short: "Restore the rules and settings that containers need on the host", Args: cobra.NoArgs,
		Long: `Restore what running containers need on the host: FORWARD rules, masquerade, gateways, host
ports, filters, bandwidth limits and the settings of bridge ports. Nothing changes in the
containers, and parts that are in place stay as they are.

repair learns from libcni's records (--cache-dir) what each container needs. For a container
without a record, it reads the network's configuration (--conf-dir), and restores only what all
containers of the network share.

With --watch, bvctl keeps running and repairs after each change of nf_tables rules. It also
repairs every 30 seconds, because the kernel does not report changes of iptables-legacy rules
and of sysctls.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ns, err := setup.CurrentHost()
			if err != nil {
				return err
			}
			defer ns.Close()
			if watch {
				return watchRules(inv, ns, cmd.OutOrStdout())
			}
			count, err := repair(inv, ns, cmd.OutOrStdout())
			if count == 0 && err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing was missing")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "keep running, and repair after each change of rules")
	return cmd
}

const (
	watchQuiet = 300 * time.Millisecond // time without a change of rules after which the repair starts
	watchMost  = time.Second            // longest time from the first change of rules to the repair
	watchIdle  = 30 * time.Second       // time between repairs if no rule changes
)

// watchRules repairs at the start and after each change of rules, until the process is killed.
func watchRules(inv *inventory.Inventory, ns *setup.Host, w io.Writer) error {
	rules, err := ns.WatchRules()
	if err != nil {
		return err
	}
	defer rules.Close()
	for {
		if _, err := repair(inv, ns, w); err != nil && !errors.Is(err, cli.ErrUnhealthy) {
			cli.PrintError(err) // the next repair may succeed
		}
		if err := rules.Wait(watchQuiet, watchMost, watchIdle); err != nil {
			return err
		}
	}
}

// repair restores missing objects on the host and in containers. It prints each restored object,
// and returns how many objects it has restored. It continues after errors. It prints errors about
// single containers on standard error, and returns all other errors.
func repair(inv *inventory.Inventory, ns *setup.Host, w io.Writer) (count int, err error) {
	ns.RememberNetworks()
	all, err := inv.Restorables(ns, inv.Networks())
	failed := false
	for _, n := range all {
		restored, err := n.Repair()
		for _, what := range restored {
			count++
			fmt.Fprintf(w, "%s: restored %s\n", n.Name, what)
		}
		if err != nil {
			failed = true
			cli.PrintError(fmt.Errorf("%s: %w", n.Name, err))
		}
	}
	if err == nil && failed {
		err = cli.ErrUnhealthy
	}
	return count, err
}
