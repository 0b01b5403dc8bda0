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

// errUnhealthy makes bvctl exit with status 1 without another message. The command has already
// printed the problems.
var errUnhealthy = errors.New("problems found")

func main() {
	if err := newRoot().Execute(); err != nil {
		if !errors.Is(err, errUnhealthy) {
			fmt.Fprintln(stderr, "bvctl:", err)
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// newRoot returns the command bvctl with its subcommands.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use: "bvctl", Short: "Show, check and repair bridgeveth's containers", Version: plugin.Version,
		SilenceUsage: true, SilenceErrors: true,
		Long: "Show, check and repair bridgeveth's containers.\n\nExit status: 0 no problems found, 1 problems found, 2 bvctl itself failed.",
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	inv := inventory.New(printError)
	root.PersistentFlags().StringVar(&inv.ConfDir, "conf-dir", inv.ConfDir, "folder of the network configurations")
	root.PersistentFlags().StringVar(&inv.DataDir, "data-dir", "", "folder of the leases (default: the folders in the configurations, and "+ipam.DefaultDir+")")
	root.PersistentFlags().StringVar(&inv.CacheDir, "cache-dir", inv.CacheDir, "folder of libcni's records of attachments")
	root.AddCommand(newFirewalld(), newNode())
	for _, cmd := range []*cobra.Command{newDoctor(inv), newInspect(inv), newLeases(inv), newRepair(inv), newTopology(inv)} {
		cmd.PersistentPreRunE = requireRoot // also for subcommands
		root.AddCommand(cmd)
	}
	return root
}

// requireRoot returns an error if bvctl does not run as root. Without root, a command would often
// see no leases, records or rules, and would report that nothing is wrong.
func requireRoot(cmd *cobra.Command, _ []string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s needs root, because only root can read leases, rules and network namespaces; run it as root", cmd.CommandPath())
	}
	return nil
}

// printError prints an error after which the command continues.
func printError(err error) { fmt.Fprintln(stderr, "bvctl:", err) }
