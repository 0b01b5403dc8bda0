// Bvctl shows, checks and repairs what bridgeveth and ipam-simple have made on this host. Run it as
// root in the host's network namespace.
//
// Each command is a package below internal, which main.go lists. pkg/inventory finds the
// attachments, and pkg/doctor follows packets. These packages make no kernel calls and import no
// plugin.
package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/config"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/doctor"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/firewalld"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/inspect"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/leases"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/metrics"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/node"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/pool"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/repair"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/topology"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// commands are the subcommands of bvctl.
var commands = []struct {
	make  func(*inventory.Inventory) *cobra.Command
	asAny bool // the command also works as another user than root
}{
	{config.New, true},
	{doctor.New, false},
	{firewalld.New, true},
	{inspect.New, false},
	{leases.New, false},
	{metrics.New, false},
	{node.New, true},
	{pool.New, false},
	{repair.New, false},
	{topology.New, false},
}

func main() {
	if err := newRoot().Execute(); err != nil {
		if !errors.Is(err, cli.ErrUnhealthy) {
			cli.PrintError(err)
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
	root.SetOut(cli.Stdout)
	root.SetErr(cli.Stderr)
	inv := inventory.New(cli.PrintError)
	root.PersistentFlags().StringVar(&inv.ConfDir, "conf-dir", inv.ConfDir, "folder of the network configurations")
	root.PersistentFlags().StringVar(&inv.DataDir, "data-dir", "", "folder of the leases (default: the folders in the configurations, and "+ipam.DefaultDir+")")
	root.PersistentFlags().StringVar(&inv.CacheDir, "cache-dir", inv.CacheDir, "folder of libcni's records of attachments")
	for _, folder := range []string{"conf-dir", "data-dir", "cache-dir"} {
		cli.CompleteOption(root, folder, cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs))
	}
	for _, c := range commands {
		cmd := c.make(inv)
		if !c.asAny {
			cmd.PersistentPreRunE = cli.RequireRoot // also for subcommands
		}
		root.AddCommand(cmd)
	}
	return root
}
