// Package pool has the commands "bvctl pool" and "bvctl pool check". They run bridgeveth-pool, which can
// call etcd.
package pool

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/leases"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// New returns "bvctl pool".
func New(inv *inventory.Inventory) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "pool", Short: "List the hosts and blocks of a shared pool of addresses", Args: cobra.NoArgs,
		Long: `List the hosts that share a pool of addresses, and their blocks. The networks are those in the folder
of configurations that have the key ipam.pool. bvctl runs bridgeveth-pool, which asks etcd.

Etcd stores which host owns which block, but no leases. The column LEASED is therefore only known
for this host.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.CheckOutput(output, "table", "json"); err != nil {
				return err
			}
			return run(cmd, inv, "list", "--output", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cli.CompleteOutput(cmd, "table", "json")
	cmd.AddCommand(newCheck(inv))
	return cmd
}

// newCheck returns "bvctl pool check".
func newCheck(inv *inventory.Inventory) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Compare etcd with the leases and links of this host", Args: cobra.NoArgs,
		Long: `Compare what etcd stores about a shared pool with the blocks and leases of this host, and the leases
with network namespaces and links. Print each contradiction with the command or action that ends it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := run(cmd, inv, "check")
			if err != nil && !errors.Is(err, cli.ErrUnhealthy) {
				return err
			}
			if links := leases.CheckLinks(inv, cmd.OutOrStdout(), (*inventory.Network).SharesPool); links != nil {
				return links
			}
			return err
		},
	}
}

// run runs a command of bridgeveth-pool. The error contains what the program has printed as an error.
func run(cmd *cobra.Command, inv *inventory.Inventory, command string, args ...string) error {
	c, err := plugin.PoolCommand(cmd.Context(), append([]string{command, "--conf-dir", inv.ConfDir}, args...)...)
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	c.Stdout, c.Stderr = cmd.OutOrStdout(), &stderr
	err = c.Run()
	if c.ProcessState != nil && c.ProcessState.ExitCode() == 1 {
		err = cli.ErrUnhealthy // check has printed what it has found
	}
	if err == nil || errors.Is(err, cli.ErrUnhealthy) {
		_, failed := stderr.WriteTo(cmd.ErrOrStderr())
		return cmp.Or(err, failed)
	}
	if text := bytes.TrimSpace(stderr.Bytes()); len(text) > 0 {
		return errors.New(string(text))
	}
	return fmt.Errorf("%s %s: %w", c.Path, command, err)
}
