// Package metrics has the command "bvctl metrics". collect.go reads the host, and table.go has the
// metrics and prints them.
package metrics

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/inventory"
)

// New returns "bvctl metrics".
func New(inv *inventory.Inventory) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "metrics", Short: "Print metrics of this host for Prometheus", Args: cobra.NoArgs,
		Long: `Print metrics of this host in Prometheus' text format: attachments, bridge ports, host ports,
leases, ranges, missing rules, and packets that rules of bridgeveth have dropped.

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
			if err := t.write(output); err != nil {
				return fmt.Errorf("--output: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "file to write instead of standard output")
	return cmd
}

// write writes the metrics to a file. It first writes another file and then renames it, so the
// collector never reads a part of the metrics. All users may read the file, because node_exporter
// does not run as root.
func (t table) write(path string) error {
	temporary := path + ".new" // the collector reads only *.prom
	// A call that was killed may have left the file. Without O_EXCL, root would follow a symbolic
	// link that another user has put there.
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|unix.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	err = errors.Join(t.print(f), f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(temporary))
	}
	return err
}
