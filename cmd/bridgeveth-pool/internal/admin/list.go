package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/host"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

// lockWait is the longest time to wait for the lock of the store.
const lockWait = 10 * time.Second

// Listing is the output of "bridgeveth-pool list". docs/pool.md describes the fields.
type Listing struct {
	Hosts []Host `json:"hosts"`
}

// Host is one network of a host.
type Host struct {
	Network string     `json:"network"`
	Host    string     `json:"host"` // the identity
	Name    string     `json:"name,omitempty"`
	Self    bool       `json:"self"` // this host
	State   string     `json:"state"`
	Heard   *time.Time `json:"heard,omitempty"`
	Blocks  []Block    `json:"blocks"`
}

// Block is a block of a host.
type Block struct {
	Block     string     `json:"block"`
	Since     *time.Time `json:"since,omitempty"`
	Addresses *uint64    `json:"addresses,omitempty"` // for containers; only of networks that this host has
	Leased    *uint64    `json:"leased,omitempty"`    // only of this host
}

// List returns the hosts of the networks' pools. Etcd does not know the leases of other hosts. The
// listing is valid even if err is not nil.
func List(ctx context.Context, networks []*ipamconfig.Config, self host.Host) (*Listing, error) {
	l := &Listing{Hosts: []Host{}}
	pools, err := surveyed(ctx, networks, self)
	var bad []error
	for _, p := range pools {
		bad = append(bad, p.survey.Bad...)
		for _, s := range p.survey.Sorted() {
			h := Host{Network: s.Network, Host: s.Host, Name: s.Name, Self: s.Host == self.ID, State: stateOf(s), Heard: timeOrNil(s.Heard), Blocks: []Block{}}
			var leases []ipam.Lease
			known := false
			if h.Self {
				var failed error
				leases, failed = p.leases(s.Network)
				known, bad = failed == nil, append(bad, failed)
			}
			for _, b := range s.Blocks {
				out := Block{Block: b.Block.String(), Since: timeOrNil(b.Since)}
				if c := p.network(s.Network); c != nil {
					out.Addresses = addresses(c, b.Block)
				}
				if known {
					out.Leased = leasedIn(leases, b.Block)
				}
				h.Blocks = append(h.Blocks, out)
			}
			l.Hosts = append(l.Hosts, h)
		}
	}
	return l, errors.Join(err, errors.Join(bad...))
}

// stateOf returns what etcd says about a host in one word.
func stateOf(s *registry.State) string {
	switch {
	case s.Fenced:
		return "forgotten"
	case s.Alive:
		return "alive"
	case s.Recorded:
		return "silent"
	}
	return "unknown"
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// leases returns the leases of a network on this host.
func (p *pool) leases(network string) (list []ipam.Lease, err error) {
	store, err := ipam.OpenExisting(p.networks[0].DataDir, lockWait) // with a pool, all networks have the same folder
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // nothing was leased since the boot
	}
	if err != nil {
		return nil, err
	}
	list, err = store.Leases(network)
	return list, errors.Join(err, store.Close())
}

// leasedIn returns how many leases are in a block.
func leasedIn(leases []ipam.Lease, b netip.Prefix) *uint64 {
	n := uint64(0)
	for _, l := range leases {
		if b.Contains(l.Address.Addr()) {
			n++
		}
	}
	return &n
}

// addresses returns how many addresses of a block are for containers.
func addresses(c *ipamconfig.Config, b netip.Prefix) *uint64 {
	n := uint64(0)
	for _, set := range c.Sets {
		for _, r := range set {
			for _, part := range r.Within(b) {
				n += part.Size()
			}
		}
	}
	return &n
}

// JSON prints the listing as JSON.
func (l *Listing) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(l)
}

// Table prints the hosts, and then the blocks of this host.
func (l *Listing) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NETWORK\tHOST\tID\tSTATE\tHEARD\tBLOCKS\tADDRESSES\tLEASED")
	for _, h := range l.Hosts {
		var all, leased uint64
		known := [2]bool{true, h.Self}
		for _, b := range h.Blocks {
			known[0], known[1] = known[0] && b.Addresses != nil, known[1] && b.Leased != nil
			all, leased = all+orZero(b.Addresses), leased+orZero(b.Leased)
		}
		name := h.Name
		switch {
		case name == "":
			name = "-"
		case h.Self:
			name += " (this host)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", h.Network, name, h.Host, h.State, when(h.Heard), len(h.Blocks), number(all, known[0]), number(leased, known[1]))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, h := range l.Hosts {
		for _, b := range h.Blocks {
			if h.Self {
				fmt.Fprintf(t, "%s\t%s\tsince %s\t%s of %s leased\n", h.Network, b.Block, when(b.Since), number(orZero(b.Leased), b.Leased != nil), number(orZero(b.Addresses), b.Addresses != nil))
			}
		}
	}
	return t.Flush()
}

func orZero(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return *n
}

// number returns a number for a column, or "-" if the number is not known.
func number(n uint64, known bool) string {
	if !known {
		return "-"
	}
	return strconv.FormatUint(n, 10)
}

// when returns a time for a column, or "-" if the time is not known.
func when(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}
