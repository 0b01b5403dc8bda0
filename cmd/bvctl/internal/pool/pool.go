// Package pool has the commands "bvctl pool", "pool check", "pool release" and "pool forget". They run
// bridgeveth-pool, which can call etcd.
package pool

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/leases"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// completionTime is how long the shell waits for the names of hosts.
const completionTime = 2 * time.Second

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
	cmd.AddCommand(newCheck(inv),
		newRemove(inv, "release", "Take the blocks from a host that is down", `Take the blocks from a host that is down. Other hosts can claim them at once. If the host is up and its
service does not run, two hosts can then lease the same address. The command refuses a host whose
service runs.`),
		newRemove(inv, "forget", "Take the blocks from a host that may be up, after 25 hours", `Delete the record of a host. The host gives out no address any more when it hears this, and at the
latest 24 hours after it has last heard from etcd. After 25 hours, other hosts can claim its blocks. All
containers of the host must have ended by then. The command refuses a host whose service runs.`))
	return cmd
}

// newRemove returns "bvctl pool release" or "bvctl pool forget".
func newRemove(inv *inventory.Inventory, command, short, long string) *cobra.Command {
	var host string
	cmd := &cobra.Command{
		Use: command, Short: short, Long: long, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if host == "" {
				return errors.New("no host is chosen; set --host to a name or ID in the output of bvctl pool")
			}
			return run(cmd, inv, command, "--host", host)
		},
	}
	cmd.Flags().StringVar(&host, "host", "", "name or ID of the host, as in the output of bvctl pool")
	cli.CompleteOption(cmd, "host", cli.Complete(func([]string) []string { return hostNames(inv) }))
	return cmd
}

// hostNames returns the names of the pool's hosts, for the completion of words.
func hostNames(inv *inventory.Inventory) (names []string) {
	ctx, cancel := context.WithTimeout(context.Background(), completionTime)
	defer cancel()
	c, err := plugin.PoolCommand(ctx, "list", "--output", "json", "--conf-dir", inv.ConfDir)
	if err != nil {
		return nil
	}
	out, _ := c.Output() // the output is valid in spite of an error
	var l struct{ Hosts []struct{ Name string } }
	if json.Unmarshal(out, &l) != nil {
		return nil
	}
	for _, h := range l.Hosts {
		names = append(names, h.Name)
	}
	return names
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
