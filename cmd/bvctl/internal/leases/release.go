package leases

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// newRelease returns "bvctl leases release".
func newRelease(inv *inventory.Inventory, f *filter) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "release", Short: "Free the leases that match --container, --address or --network", Args: cobra.NoArgs,
		Long: "Free leases. Without --force, release keeps leases of containers that may be running. With --force, another\ncontainer may get an address that is still in use.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if *f == (filter{}) {
				return errors.New("no lease is chosen; set --container, --address or --network")
			}
			if err := f.check(); err != nil {
				return err
			}
			return release(inv, cmd.OutOrStdout(), *f, force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also free leases of containers that may be running")
	return cmd
}

// release frees the leases that match the filter, and prints the result for each lease.
func release(inv *inventory.Inventory, w io.Writer, f filter, force bool) error {
	ns, err := setup.CurrentHost()
	if err != nil {
		return err
	}
	defer ns.Close()
	refused := false
	err = inv.Stores(inv.Networks(), func(s *ipam.Store) error {
		var chosen []ipam.Lease
		if err := f.each(s, func(l ipam.Lease) { chosen = append(chosen, l) }); err != nil {
			return err
		}
		for _, l := range chosen {
			state := stateOf(l)
			attached, err := ns.HasPort(inventory.LeasedTo(l))
			if err != nil {
				return err
			}
			if state == stateGone && attached {
				state = "its link exists"
			}
			if !force && state != stateGone && state != stateKept {
				refused = true
				fmt.Fprintf(w, "%s of container %s on %s: may be in use (%s), not freed; use --force to free it\n", l.Address, l.Container, l.Network, state)
				continue
			}
			if err := s.Free(l); err != nil {
				return err
			}
			fmt.Fprintf(w, "%s of container %s on %s: freed\n", l.Address, l.Container, l.Network)
		}
		return nil
	})
	if err == nil && refused {
		err = cli.ErrUnhealthy
	}
	return err
}
