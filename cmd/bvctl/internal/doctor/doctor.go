// Package doctor has the command "bvctl doctor". pkg/doctor follows the packets.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/doctor"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
)

// New returns "bvctl doctor".
func New(inv *inventory.Inventory) *cobra.Command {
	var output, report string
	var fix, verbose, mask bool
	cmd := &cobra.Command{
		Use: "doctor [A [B]]", Short: "Find what drops a packet from A to B", Args: cobra.MaximumNArgs(2),
		Long: `Find what drops a packet from A to B. doctor checks each station on the path. Then it sends a
test packet and finds out where the packet is lost.

A is a container: its ID or the beginning of its ID, its pod (NAMESPACE/NAME), the path of its
network namespace, or its address. B is another container, or any address. Without B, doctor
checks the paths from A to its gateways and to the next container on the bridge. Without A
and B, it checks these paths for every container.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cli.CheckOutput(output, "text", "json"); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
			context.AfterFunc(ctx, stop) // a second signal kills the process
			if mask && report == "" {
				return errors.New("--mask: it changes only the archive of --report; set --report too")
			}
			reports, err := examine(ctx, inv, args, fix, cmd.ErrOrStderr())
			if report != "" {
				if failed := writeReport(ctx, inv, reports, err, report, mask, cmd.ErrOrStderr()); failed != nil {
					return fmt.Errorf("--report: %w", failed)
				}
			}
			if err != nil {
				return err
			}
			return print(reports, output, verbose || len(args) == 2, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().BoolVar(&fix, "fix", false, "run the commands that fix the problems found, then check again")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show every station of every path; this is the default with A and B")
	cmd.Flags().StringVar(&report, "report", "", "also write an archive (tar.gz) for a bug report to this file")
	cmd.Flags().BoolVar(&mask, "mask", false, "replace names and addresses in the archive of --report")
	cli.CompleteOutput(cmd, "text", "json")
	cli.CompleteOption(cmd, "report", cobra.FixedCompletions([]string{"tar.gz"}, cobra.ShellCompDirectiveFilterFileExt))
	cmd.ValidArgsFunction = cli.Complete(func(args []string) []string {
		if len(args) > 1 {
			return nil
		}
		return cli.ContainerNames(inv)
	})
	return cmd
}

// examine checks the paths of the containers that args name, or of all containers if args is empty.
// If fix is set, it runs the commands that fix the problems. If it has run a command, it checks the
// paths again.
func examine(ctx context.Context, inv *inventory.Inventory, args []string, fix bool, w io.Writer) ([]*doctor.Report, error) {
	if slices.Contains(args, "") {
		return nil, errors.New(`"" is no container; list the containers with bvctl inspect`)
	}
	lock, err := acquireDoctor()
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	reports, err := examineOnce(ctx, inv, args)
	if err != nil || !fix {
		return reports, err
	}
	tried, err := fixAll(inv, reports, w)
	if err != nil || len(tried) == 0 {
		return reports, err
	}
	if reports, err = examineOnce(ctx, inv, args); err == nil {
		printIneffective(reports, tried, w)
	}
	return reports, err
}

// examineOnce checks the paths of the containers that args name, or of all containers if args is
// empty.
func examineOnce(ctx context.Context, inv *inventory.Inventory, args []string) ([]*doctor.Report, error) {
	x, err := newExamination(inv)
	if err != nil {
		return nil, err
	}
	defer x.close()
	return x.walk(ctx, args)
}

// marks are the symbols in the text output for the results of stations. A station is one check on
// the path of a packet.
var marks = map[doctor.State]string{doctor.Good: "✓", doctor.Bad: "✗", doctor.Note: "·"}

// print prints the reports. It returns cli.ErrUnhealthy if a report has a problem.
func print(reports []*doctor.Report, output string, verbose bool, w io.Writer) error {
	healthy := !slices.ContainsFunc(reports, func(r *doctor.Report) bool { return !r.Healthy() })
	if output == "json" {
		type report struct {
			*doctor.Report
			Obstacle *doctor.Station `json:"obstacle"`
		}
		list := make([]report, 0, len(reports))
		for _, r := range reports {
			list = append(list, report{r, r.Obstacle()})
		}
		if err := cli.PrintJSON(w, list); err != nil {
			return err
		}
	} else {
		if verbose {
			for _, r := range reports {
				show(r, w)
			}
		} else {
			summarize(reports, w)
		}
		if len(reports) == 0 {
			fmt.Fprintln(w, "no containers found")
		} else if healthy {
			fmt.Fprintln(w, "no problems found")
		}
	}
	if !healthy {
		return cli.ErrUnhealthy
	}
	return nil
}

// show prints a report with all its stations (the checks on the path). At the end, next to the
// shell prompt, it prints again the station that blocks the path (the obstacle).
func show(r *doctor.Report, w io.Writer) {
	fmt.Fprintln(w, r.Path())
	for _, s := range r.Stations {
		fmt.Fprintf(w, "  %s %s: %s\n", marks[s.State], s.Name, s.What)
	}
	if o := r.Obstacle(); o != nil {
		fmt.Fprintf(w, "\n  Obstacle: %s: %s\n", o.Name, o.What)
		showRemedy(o, w)
	}
	fmt.Fprintln(w)
}

// showRemedy prints the remedy for the problem of a station: a command, or advice.
func showRemedy(s *doctor.Station, w io.Writer) {
	if s.Advice {
		fmt.Fprintf(w, "  Advice: %s\n", s.Remedy)
	} else {
		fmt.Fprintf(w, "  Fix: %s\n", s.Remedy)
	}
}

// summarize prints one line for each path that has no obstacle, followed by the notes on this path.
// Then it prints each obstacle once, with the paths that it blocks.
func summarize(reports []*doctor.Report, w io.Writer) {
	var obstacles []doctor.Station
	blocked := map[doctor.Station][]*doctor.Report{}
	for _, r := range reports {
		if o := r.Obstacle(); o != nil {
			if blocked[*o] == nil {
				obstacles = append(obstacles, *o)
			}
			blocked[*o] = append(blocked[*o], r)
			continue
		}
		fmt.Fprintf(w, "✓ %s\n", r.Path())
		for _, s := range r.Stations {
			if s.State != doctor.Good {
				fmt.Fprintf(w, "  %s %s: %s\n", marks[s.State], s.Name, s.What)
			}
		}
	}
	for _, o := range obstacles {
		fmt.Fprintf(w, "\n✗ %s: %s\n", o.Name, o.What)
		showRemedy(&o, w)
		seen := map[doctor.Station]bool{o: true}
		for _, r := range blocked[o] {
			fmt.Fprintf(w, "  · %s\n", r.Path())
			for _, s := range r.Stations {
				if s.State == doctor.Bad && !seen[s] {
					fmt.Fprintf(w, "    ✗ %s: %s\n", s.Name, s.What)
					seen[s] = true
				}
			}
		}
	}
}
