// Package leases has the commands "bvctl leases", "leases check" and "leases release".
package leases

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

const (
	barWidth = 20            // width of the bar that shows how full a range is, in characters
	maxExact = 1_000_000_000 // larger numbers of addresses are printed in the form 1.8e+19
)

// filter selects leases. An empty field matches every lease.
type filter struct{ network, container, address string }

// Lease is one lease in the output of "bvctl leases".
type Lease struct {
	Network   string     `json:"network"`
	Address   string     `json:"address"`
	Container string     `json:"container,omitempty"`
	Interface string     `json:"interface,omitempty"`
	Pod       string     `json:"pod,omitempty"`
	Namespace string     `json:"namespace,omitempty"`
	Since     time.Time  `json:"since"`
	Until     *time.Time `json:"until,omitempty"`
	State     string     `json:"state"` // one of the constants state… below
}

const (
	stateAttached  = "attached"
	stateGone      = "gone"      // the network namespace does not exist any more, but DEL was not called
	stateKept      = "kept"      // a sticky address, kept for its pod
	stateInherited = "inherited" // imported from host-local, which does not record the namespace
)

// States contains all states of leases.
var States = []string{stateAttached, stateGone, stateKept, stateInherited}

// Usage is one range in the output of "bvctl leases".
type Usage struct {
	Network string `json:"network"`
	Range   string `json:"range"`
	Leased  uint64 `json:"leased"`
	Size    uint64 `json:"size"`
}

// Listing is the output of "bvctl leases".
type Listing struct {
	Leases []Lease `json:"leases"`
	Ranges []Usage `json:"ranges"`

	configured map[string]bool // the networks that have a configuration, by name
}

// New returns "bvctl leases".
func New(inv *inventory.Inventory) *cobra.Command {
	var f filter
	var output string
	cmd := &cobra.Command{
		Use: "leases", Short: "List addresses and how full each range is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.CheckOutput(output, "table", "json"); err != nil {
				return err
			}
			if err := f.check(); err != nil {
				return err
			}
			l, err := list(inv, inv.Networks(), f)
			err = errors.Join(err, l.namePods(inv))
			if output == "json" {
				return errors.Join(err, l.json(cmd.OutOrStdout()))
			}
			return errors.Join(err, l.table(cmd.OutOrStdout()))
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.PersistentFlags().StringVar(&f.network, "network", "", "only leases of this network")
	cmd.PersistentFlags().StringVar(&f.container, "container", "", "only leases of this container; the beginning of its ID is enough")
	cmd.PersistentFlags().StringVar(&f.address, "address", "", "only the lease of this address")
	cli.CompleteOutput(cmd, "table", "json")
	for option, of := range map[string]func(Lease) string{
		"network":   func(l Lease) string { return l.Network },
		"container": func(l Lease) string { return cli.Shorten(l.Container) },
		"address":   func(l Lease) string { address, _, _ := strings.Cut(l.Address, "/"); return address },
	} {
		cli.CompleteOption(cmd, option, cli.Complete(func([]string) (names []string) {
			all, _ := List(inv, inv.Networks()) // the listing is valid in spite of an error
			for _, l := range all.Leases {
				names = append(names, of(l))
			}
			return names
		}))
	}
	cmd.AddCommand(newCheck(inv), newRelease(inv, &f))
	return cmd
}

// List returns all leases and ranges, without the names of pods. The parameter networks contains the
// configured networks. The listing is valid even if err is not nil.
func List(inv *inventory.Inventory, networks []inventory.Network) (*Listing, error) {
	return list(inv, networks, filter{})
}

// list returns the leases and the ranges that match the filter, like List.
func list(inv *inventory.Inventory, networks []inventory.Network, f filter) (*Listing, error) {
	l := &Listing{configured: map[string]bool{}}
	for _, n := range networks {
		l.configured[n.Name] = true
	}
	return l, inv.Stores(networks, func(s *ipam.Store) error { return l.read(s, f) })
}

// check returns an error if the address of the filter is not an IP address.
func (f filter) check() error {
	if _, err := netip.ParseAddr(f.address); f.address != "" && err != nil {
		return fmt.Errorf("--address: %q is no IP address; write one as 10.1.0.9 or fd00:1::9", f.address)
	}
	return nil
}

// each calls visit for each lease of the store that matches the filter.
func (f filter) each(s *ipam.Store, visit func(ipam.Lease)) error {
	return inventory.EachLease(s, f.network, f.container, func(l ipam.Lease) {
		if f.matches(l.Address.Addr()) {
			visit(l)
		}
	})
}

// matches reports whether the address of a lease matches the filter.
func (f filter) matches(a netip.Addr) bool {
	wanted, err := netip.ParseAddr(f.address)
	return f.address == "" || err == nil && wanted.Unmap() == a
}

// read adds the leases and the ranges of a store to the listing.
func (l *Listing) read(s *ipam.Store, f filter) error {
	if err := f.each(s, func(found ipam.Lease) { l.Leases = append(l.Leases, describe(found)) }); err != nil {
		return err
	}
	names, err := s.Networks()
	for _, name := range names {
		if f.network != "" && f.network != name {
			continue
		}
		ranges, usageErr := s.Usage(name)
		for _, u := range ranges {
			if u.Leased == 0 && !l.configured[name] {
				// Omit this range: the network was removed and has no leases. The range is still in
				// the store, because the store keeps the order in which free addresses are given
				// out.
				continue
			}
			l.Ranges = append(l.Ranges, Usage{name, u.String(), u.Leased, u.Size})
		}
		err = errors.Join(err, usageErr)
	}
	return err
}

// namePods adds the names of pods to the leases. The names come from libcni's records, because a
// lease contains the pod's name only if its address is sticky (kept for the pod).
func (l *Listing) namePods(inv *inventory.Inventory) error {
	pods, err := inv.Pods()
	for i := range l.Leases {
		of := &l.Leases[i]
		of.Pod = cmp.Or(of.Pod, pods[setup.Attachment{Network: of.Network, Container: of.Container, Interface: of.Interface}])
	}
	return err
}

// describe returns a lease for the output.
func describe(l ipam.Lease) Lease {
	out := Lease{
		Network: l.Network, Address: l.Address.String(), Container: l.Container, Interface: l.Interface,
		Pod: l.Sticky.Name, Namespace: l.Namespace.Path, Since: l.Time, State: stateOf(l),
	}
	if !l.Until.IsZero() {
		out.Until = &l.Until
	}
	return out
}

// stateOf returns the state of a lease.
func stateOf(l ipam.Lease) string {
	switch {
	case !l.Until.IsZero():
		return stateKept
	case l.Namespace == ipam.Namespace{}:
		return stateInherited
	case l.Namespace.Gone():
		return stateGone
	}
	return stateAttached
}

// json prints the listing as JSON.
func (l *Listing) json(w io.Writer) error {
	if l.Leases == nil {
		l.Leases = []Lease{}
	}
	if l.Ranges == nil {
		l.Ranges = []Usage{}
	}
	return cli.PrintJSON(w, l)
}

// table prints the listing as text.
func (l *Listing) table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NETWORK\tADDRESS\tCONTAINER\tINTERFACE\tPOD\tSINCE\tSTATE")
	for _, l := range l.Leases {
		state := l.State
		if l.Until != nil {
			state += " until " + l.Until.Format(time.DateTime)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Network, l.Address, cli.Shorten(l.Container), l.Interface, cli.OrDash(l.Pod), l.Since.Format(time.DateTime), state)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(l.Ranges) > 0 {
		fmt.Fprintln(w)
	}
	for _, u := range l.Ranges {
		size := strconv.FormatUint(u.Size, 10)
		if u.Size > maxExact {
			size = fmt.Sprintf("%.1e", float64(u.Size))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d of %s leased\n", u.Network, u.Range, bar(u.Leased, u.Size), u.Leased, size)
	}
	return t.Flush()
}

// bar returns a bar that shows how full a range is. The bar is empty only if the range has no
// leases, and full only if no address is free.
func bar(leased, size uint64) string {
	full := int(float64(leased) / float64(size) * barWidth)
	switch {
	case leased >= size:
		full = barWidth
	case leased > 0:
		full = min(max(full, 1), barWidth-1)
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "]"
}
