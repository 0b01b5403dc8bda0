// Bvctl shows a person what bridgeveth and ipam-simple have made on this host, says
// what is wrong with it, and mends it. It needs root, and to be run in the host's
// network namespace.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// errUnhealthy ends bvctl with status 1 when what is wrong was printed already.
var errUnhealthy = errors.New("something is wrong")

func main() {
	if err := newRoot().Execute(); err != nil {
		if !errors.Is(err, errUnhealthy) {
			fmt.Fprintln(stderr, "bvctl:", err)
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// newRoot returns the command with all those below it.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use: "bvctl", Short: "Look after bridgeveth's containers and their addresses", Version: plugin.Version,
		SilenceUsage: true, SilenceErrors: true,
		Long: "Look after bridgeveth's containers and their addresses.\n\nExit status: 0 all is well, 1 something is wrong, 2 bvctl itself failed.",
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	inv := inventory.New(complain)
	root.PersistentFlags().StringVar(&inv.ConfDir, "conf-dir", inv.ConfDir, "folder of the network configurations")
	root.PersistentFlags().StringVar(&inv.DataDir, "data-dir", "", "folder of leases (default: those of the configurations, and "+ipam.DefaultDir+")")
	root.PersistentFlags().StringVar(&inv.CacheDir, "cache-dir", inv.CacheDir, "folder where libcni keeps what it has attached")
	root.AddCommand(newDoctor(inv), newFirewalld(), newInspect(inv), newLeases(inv), newRepair(inv), newTopology(inv))
	return root
}

// complain prints an error after which bvctl continues on standard error.
func complain(err error) { fmt.Fprintln(stderr, "bvctl:", err) }
