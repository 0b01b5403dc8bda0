package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/doctor"
	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/plugins/bridgeveth"
)

// newDoctor returns "bvctl doctor".
func newDoctor(h *host) *cobra.Command {
	var output string
	var fix bool
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
			x, err := newExamination(h)
			if err != nil {
				return err
			}
			defer x.close()
			reports, err := x.walk(ctx, args)
			if err == nil && fix {
				if err = x.fix(reports, cmd.ErrOrStderr()); err == nil {
					reports, err = x.walk(ctx, args) // how it is now
				}
			}
			if err != nil {
				return err
			}
			return print(reports, output, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().BoolVar(&fix, "fix", false, "run the commands that are shown to cure what is wrong, and look again")
	return cmd
}

// examination is one run of the doctor.
type examination struct {
	*doctor.Doctor
	ends []*doctor.End
	all  []*container // in the order of ends
	lock *flock.Lock  // a doctor's counters and traces are disturbed by another's packets
}

const (
	doctorLock = "/run/bridgeveth-doctor.lock"
	doctorWait = 2 * time.Minute // for another doctor, who may look at all of the node
)

func newExamination(h *host) (*examination, error) {
	ns, err := setup.CurrentNamespace()
	if err != nil {
		return nil, err
	}
	x := &examination{Doctor: &doctor.Doctor{Host: ns}}
	if err := x.acquire(); err != nil {
		x.close()
		return nil, err
	}
	all, err := h.containers(ns)
	if err != nil {
		x.close()
		return nil, err
	}
	for _, c := range all {
		e := &doctor.End{Name: c.name(), Interface: c.Interface, Port: c.port.Name, Bridge: c.bridge, Addresses: c.addresses}
		if e.Namespace, err = setup.OpenNamespace(c.namespace); err != nil {
			complain(fmt.Errorf("container %s of network %s: %w; have the runtime remove it", c.name(), c.Network, err))
			continue
		}
		if c.check != nil {
			e.Drift = func() (host, inside error) { return bridgeveth.Verify(c.check) }
		}
		x.ends, x.all = append(x.ends, e), append(x.all, c)
	}
	x.Ends = x.ends
	if err := x.Tidy(); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

// acquire waits for other doctors.
func (x *examination) acquire() error {
	f, err := os.OpenFile(doctorLock, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	defer f.Close()
	x.lock, err = flock.Acquire(doctorLock, flock.Exclusive, doctorWait)
	return err
}

func (x *examination) close() {
	x.lock.Unlock()
	for _, e := range x.ends {
		e.Namespace.Close()
	}
	x.Host.Close()
}

// walk goes all the ways that are asked for.
func (x *examination) walk(ctx context.Context, args []string) (reports []*doctor.Report, err error) {
	from := x.ends
	if len(args) > 0 {
		a, err := x.find(args[0])
		if err != nil {
			return nil, err
		}
		if a == nil {
			return nil, fmt.Errorf("%q is no container of bridgeveth's; bvctl inspect lists them", args[0])
		}
		from = []*doctor.End{a}
	}
	for _, a := range from {
		targets := x.nearby(a)
		if len(args) == 2 {
			b, err := x.target(args[1])
			if err != nil {
				return nil, err
			}
			targets = []*doctor.End{b}
		}
		for _, b := range targets {
			for _, is4 := range []bool{true, false} {
				if !has(a, is4) || !has(b, is4) {
					continue
				}
				r, err := x.Walk(ctx, a, b, is4)
				if err != nil {
					return nil, err
				}
				reports = append(reports, r)
			}
		}
	}
	if len(reports) == 0 && len(args) > 0 {
		return nil, errors.New("the two have no address of the same family")
	}
	return reports, nil
}

func has(e *doctor.End, is4 bool) bool {
	return slices.ContainsFunc(e.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == is4 })
}

// find looks a container up; nil is none.
func (x *examination) find(name string) (found *doctor.End, err error) {
	var names []string
	for i, c := range x.all {
		if c.goesBy(name) {
			found = x.ends[i]
			names = append(names, c.name()+" "+c.Interface)
		}
	}
	if len(names) > 1 {
		return nil, fmt.Errorf("%q may be any of %s; be more precise, or name its address", name, strings.Join(names, ", "))
	}
	return found, nil
}

// target is a container, or an address.
func (x *examination) target(name string) (*doctor.End, error) {
	b, err := x.find(name)
	if b != nil || err != nil {
		return b, err
	}
	address, err := netip.ParseAddr(name)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a container of bridgeveth's nor an address", name)
	}
	return &doctor.End{Name: name, Addresses: []netip.Prefix{netip.PrefixFrom(address, address.BitLen())}}, nil
}

// nearby are the gateways of a container, and the next container on its bridge.
func (x *examination) nearby(a *doctor.End) (list []*doctor.End) {
	gateways, err := x.Host.Addresses(a.Bridge)
	if err != nil {
		complain(err)
	}
	for _, g := range gateways {
		if slices.ContainsFunc(a.Addresses, func(p netip.Prefix) bool { return p.Contains(g.Addr()) }) {
			list = append(list, &doctor.End{Name: g.Addr().String(), Addresses: []netip.Prefix{netip.PrefixFrom(g.Addr(), g.Addr().BitLen())}})
		}
	}
	at := slices.Index(x.ends, a)
	for i := 1; i < len(x.ends); i++ {
		if b := x.ends[(at+i)%len(x.ends)]; b.Bridge == a.Bridge {
			return append(list, b)
		}
	}
	return list
}

// carrierWait is how long the kernel may take to see that a link has a carrier
// (net/core/link_watch.c).
const carrierWait = time.Second

// fix runs the commands of what is bad, each once.
func (x *examination) fix(reports []*doctor.Report, w io.Writer) error {
	done := map[string]bool{}
	self, err := os.Executable() // bvctl is in many of them
	if err != nil {
		return err
	}
	for _, r := range reports {
		for _, s := range r.Stations {
			if s.State != doctor.Bad || s.Advice || done[s.Remedy] {
				continue
			}
			done[s.Remedy] = true
			fmt.Fprintln(w, "+", s.Remedy)
			cure := exec.Command("sh", "-c", s.Remedy)
			cure.Env = append(os.Environ(), "PATH="+filepath.Dir(self)+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
			if out, err := cure.CombinedOutput(); err != nil {
				fmt.Fprintf(w, "%v: %s", err, out)
			}
		}
	}
	if len(done) > 0 {
		time.Sleep(carrierWait)
	}
	return nil
}

// marks of stations, for a terminal.
var marks = map[doctor.State]string{doctor.Good: "✓", doctor.Bad: "✗", doctor.Note: "·"}

// print shows the reports; an error says that something is wrong.
func print(reports []*doctor.Report, output string, w io.Writer) error {
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
		for _, r := range reports {
			show(r, w)
		}
		if healthy {
			fmt.Fprintln(w, "all is well")
		}
	}
	if !healthy {
		return errUnhealthy
	}
	return nil
}

// show prints a report: the obstacle last, where it is read first.
func show(r *doctor.Report, w io.Writer) {
	fmt.Fprintf(w, "%s → %s\n", r.From, r.To)
	for _, s := range r.Stations {
		fmt.Fprintf(w, "  %s %s: %s\n", marks[s.State], s.Name, s.What)
	}
	if o := r.Obstacle(); o != nil {
		fmt.Fprintf(w, "\n  The obstacle: %s: %s\n", o.Name, o.What)
		if o.Advice {
			fmt.Fprintf(w, "  What to do: %s\n", o.Remedy)
		} else {
			fmt.Fprintf(w, "  The cure:   %s\n", o.Remedy)
		}
	}
	fmt.Fprintln(w)
}
