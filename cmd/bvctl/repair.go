package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// newRepair returns "bvctl repair".
func newRepair(inv *inventory.Inventory) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "repair", Short: "Put back what the host has lost of what its containers need", Args: cobra.NoArgs,
		Long: `Put back what the host has lost of what its containers need: forwarding rules, masquerade,
gateways, host ports, filters, limits, the settings of ports. Containers keep running; what is
inside of them is left alone. What is in place stays as it is.

What a container was given is read from the folder where its runtime's libcni keeps it. Of
a container that is not there, only the network is looked at, by its configuration.

With --watch it goes on doing so: whenever rules of nf_tables change, whoever changes them,
and once in half a minute, since iptables-legacy and sysctls change in silence.`,
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
	cmd.Flags().BoolVar(&watch, "watch", false, "go on, whenever rules change")
	return cmd
}

const (
	watchQuiet = 300 * time.Millisecond // between the last change of rules and the repair
	watchMost  = time.Second            // between the first change and the repair, however many follow
	watchIdle  = 30 * time.Second       // between looks at what changes in silence
)

// watchRules repairs until it is killed.
func watchRules(inv *inventory.Inventory, ns *setup.Host, w io.Writer) error {
	rules, err := ns.WatchRules()
	if err != nil {
		return err
	}
	defer rules.Close()
	for {
		if _, err := repair(inv, ns, w); err != nil && !errors.Is(err, errUnhealthy) {
			complain(err) // it may be better the next time
		}
		if err := rules.Wait(watchQuiet, watchMost, watchIdle); err != nil {
			return err
		}
	}
}

// repair puts back what is missing, and says how much that was. It goes on after errors. Those
// of a container it says on standard error; that not all is known that there is to repair is
// returned.
func repair(inv *inventory.Inventory, ns *setup.Host, w io.Writer) (count int, err error) {
	all, err := inv.Restorables(ns, inv.Networks())
	failed := false
	for _, n := range all {
		mended, err := n.Repair()
		for _, what := range mended {
			count++
			fmt.Fprintf(w, "%s: put back %s\n", n.Name, what)
		}
		if err != nil {
			failed = true
			complain(fmt.Errorf("%s: %w", n.Name, err))
		}
	}
	if err == nil && failed {
		err = errUnhealthy
	}
	return count, err
}
