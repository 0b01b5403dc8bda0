// Bvctl shows a person what bridgeveth and ipam-simple have made on this host, says
// what is wrong with it, and mends it. It needs root, and to be run in the host's
// network namespace.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/libcni"
	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	ipamsimple "github.com/bridgeveth/bridgeveth/plugins/ipam-simple"
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
	var h host
	root.PersistentFlags().StringVar(&h.confDir, "conf-dir", "/etc/cni/net.d", "folder of the network configurations")
	root.PersistentFlags().StringVar(&h.dataDir, "data-dir", "", "folder of leases (default: those of the configurations, and "+ipamsimple.DefaultDataDir+")")
	root.PersistentFlags().StringVar(&h.cacheDir, "cache-dir", libcni.CacheDir, "folder where libcni keeps what it has attached")
	root.AddCommand(newDoctor(&h), newFirewalld(), newInspect(&h), newLeases(&h), newRepair(&h), newTopology(&h))
	return root
}
