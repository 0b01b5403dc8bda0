package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/doctor"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
)

// newDoctor returns "bvctl doctor".
func newDoctor(inv *inventory.Inventory) *cobra.Command {
	var output string
	var fix, verbose bool
	cmd := &cobra.Command{
		Use: "doctor [A [B]]", Short: "Find out why a packet from A does not arrive at B", Args: cobra.MaximumNArgs(2),
		Long: `Find out why a packet from A does not arrive at B: walk its way, look at each station, and
send a packet to see where it ends.

A is a container: its ID or the beginning of it, its pod (NAMESPACE/NAME), the path of its
namespace, or its address. B is one too, or any address. Without B the way goes to A's
gateway and to its neighbour on the bridge; without either, for every container.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("--output: %q is none of text, json", output)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
			context.AfterFunc(ctx, stop) // the second kills
			reports, err := examine(ctx, inv, args, fix, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return print(reports, output, verbose || len(args) == 2, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().BoolVar(&fix, "fix", false, "run the commands that are shown to cure what is wrong, and look again")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show every station of ways on which all is well (always shown from A to B)")
	return cmd
}

// examine goes all the ways that are asked for, a second time if something was done about
// what is wrong.
func examine(ctx context.Context, inv *inventory.Inventory, args []string, fix bool, w io.Writer) ([]*doctor.Report, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("bvctl needs root: the doctor enters containers, and sends packets from there")
	}
	if slices.Contains(args, "") {
		return nil, errors.New(`"" is no container; bvctl inspect lists them`)
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
	tried, err := cure(inv, reports, w)
	if err != nil || len(tried) == 0 {
		return reports, err
	}
	if reports, err = examineOnce(ctx, inv, args); err == nil {
		vain(reports, tried, w)
	}
	return reports, err
}

// examineOnce goes all the ways that are asked for.
func examineOnce(ctx context.Context, inv *inventory.Inventory, args []string) ([]*doctor.Report, error) {
	x, err := newExamination(inv)
	if err != nil {
		return nil, err
	}
	defer x.close()
	return x.walk(ctx, args)
}

// marks of stations, for a terminal.
var marks = map[doctor.State]string{doctor.Good: "✓", doctor.Bad: "✗", doctor.Note: "·"}

// print shows the reports; an error says that something is wrong.
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
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if err := e.Encode(list); err != nil {
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
			fmt.Fprintln(w, "there are no containers")
		} else if healthy {
			fmt.Fprintln(w, "all is well")
		}
	}
	if !healthy {
		return errUnhealthy
	}
	return nil
}

// show prints a report with all its stations: the obstacle last, where it is read first.
func show(r *doctor.Report, w io.Writer) {
	fmt.Fprintln(w, r.Way())
	for _, s := range r.Stations {
		fmt.Fprintf(w, "  %s %s: %s\n", marks[s.State], s.Name, s.What)
	}
	if o := r.Obstacle(); o != nil {
		fmt.Fprintf(w, "\n  The obstacle: %s: %s\n", o.Name, o.What)
		showRemedy(o, w)
	}
	fmt.Fprintln(w)
}

// showRemedy prints what to do about a station.
func showRemedy(s *doctor.Station, w io.Writer) {
	if s.Advice {
		fmt.Fprintf(w, "  What to do: %s\n", s.Remedy)
	} else {
		fmt.Fprintf(w, "  The cure:   %s\n", s.Remedy)
	}
}

// summarize prints a line for each way on which all is well, with its notes, and then each
// obstacle once, with the ways that it blocks.
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
		fmt.Fprintf(w, "✓ %s\n", r.Way())
		for _, s := range r.Stations {
			if s.State != doctor.Good {
				fmt.Fprintf(w, "  %s %s: %s\n", marks[s.State], s.Name, s.What)
			}
		}
	}
	for _, o := range obstacles {
		fmt.Fprintf(w, "\n✗ %s: %s\n", o.Name, o.What)
		showRemedy(&o, w)
		said := map[doctor.Station]bool{o: true}
		for _, r := range blocked[o] {
			fmt.Fprintf(w, "  · %s\n", r.Way())
			for _, s := range r.Stations {
				if s.State == doctor.Bad && !said[s] {
					fmt.Fprintf(w, "    ✗ %s: %s\n", s.Name, s.What)
					said[s] = true
				}
			}
		}
	}
}
