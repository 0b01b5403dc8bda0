// Package metrics has the command "bvctl metrics". collect.go reads the host, and table.go has the
// metrics and prints them.
package metrics

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
)

// New returns "bvctl metrics".
func New(inv *inventory.Inventory) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "metrics", Short: "Print metrics of this host for Prometheus", Args: cobra.NoArgs,
		Long: `Print metrics of this host in Prometheus' text format: attachments, bridge ports, host ports,
leases, ranges, shared pools, missing rules, and packets that rules of bridgeveth have dropped.

With --output, bvctl writes them to a file for the textfile collector of node_exporter. The
collector reads each file in its folder whose name ends with ".prom".`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := collect(inv)
			if err != nil {
				return err
			}
			if output == "" {
				return t.print(cmd.OutOrStdout())
			}
			// node_exporter reads the file, and does not run as root.
			if err := cli.WriteFile(output, 0o644, t.print); err != nil {
				return fmt.Errorf("--output: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write instead of standard output")
	cli.CompleteOption(cmd, "output", cobra.FixedCompletions([]string{"prom"}, cobra.ShellCompDirectiveFilterFileExt))
	return cmd
}
