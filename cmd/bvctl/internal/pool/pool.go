// Package pool has the command "bvctl pool". It runs bridgeveth-pool, which can call etcd.
package pool

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
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
	return cmd
}

// run runs a command of bridgeveth-pool. The error contains what the program has printed as an error.
func run(cmd *cobra.Command, inv *inventory.Inventory, command string, args ...string) error {
	c, err := plugin.PoolCommand(cmd.Context(), append([]string{command, "--conf-dir", inv.ConfDir}, args...)...)
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	c.Stdout, c.Stderr = cmd.OutOrStdout(), &stderr
	if err = c.Run(); err == nil {
		_, err = stderr.WriteTo(cmd.ErrOrStderr())
		return err
	}
	if text := bytes.TrimSpace(stderr.Bytes()); len(text) > 0 {
		return errors.New(string(text))
	}
	return fmt.Errorf("%s %s: %w", c.Path, command, err)
}
