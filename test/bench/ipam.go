package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

const (
	ipamSubnet   = "10.0.0.0/12"          // has room for a million leases
	slowOp       = 100 * time.Millisecond // a plugin that takes longer gets fewer turns
	slowTurns    = 3
	maxLeases    = 1_000_000
	hostLocalMax = 65_000 // largest number of leases for host-local; with more, its ADD takes minutes
)

// allocator is an IPAM plugin. The benchmark runs it as a separate program.
type allocator struct {
	name, path string
	dir        string // folder of the leases
	most       int    // largest number of leases
	fill       func(dir string, from, to int) error
	pool       bool // hosts share the addresses
}

// withPool is the name of ipam-simple with a pool that hosts share.
const withPool = "ipam-simple, pool"

// ipamRow holds the times of one IPAM plugin with a given number of leases in its store, in
// milliseconds.
type ipamRow struct {
	Plugin string  `json:"plugin"`
	Leases int     `json:"leases"`
	AddMS  float64 `json:"addMs"`
	DelMS  float64 `json:"delMs"`
	Count  int     `json:"count"`
}

// ipamReport holds the rows of all IPAM plugins, and the run time of a program that does nothing.
type ipamReport struct {
	EmptyMS float64   `json:"emptyMs"`
	Rows    []ipamRow `json:"rows"`
}

// measureIPAM fills the stores of the IPAM plugins with leases, and measures the plugins in turns.
func measureIPAM(ctx context.Context, opts options) (*ipamReport, error) {
	dir, err := os.MkdirTemp("", "bench-ipam-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(dir)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil { // the same kind of file system for all plugins
		return nil, fmt.Errorf("mount tmpfs: %w", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)                            //nolint:errcheck // the mount ends with the sandbox
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil { // a pool needs the default folder of the leases
		return nil, fmt.Errorf("mount tmpfs: %w", err)
	}
	defer unix.Unmount("/run", unix.MNT_DETACH) //nolint:errcheck // the mount ends with the sandbox
	ours := filepath.Join(opts.bin, "ipam-simple")
	plugins := []allocator{
		{"ipam-simple", ours, dir + "/ipam-simple", maxLeases, fillOurs, false},
		{withPool, ours, ipam.DefaultDir, 0, fillPool, true},
		{"host-local", filepath.Join(opts.peers, "host-local"), dir + "/host-local", hostLocalMax, fillHostLocal, false},
	}
	rep := &ipamReport{}
	filled := 0
	for _, leases := range opts.leases {
		plugins = slices.DeleteFunc(plugins, func(a allocator) bool { return leases > a.most })
		for _, a := range plugins {
			if err := a.fill(a.dir, filled, leases); err != nil {
				return nil, fmt.Errorf("fill the store of %s: %w", a.name, err)
			}
		}
		filled = leases
		adds, dels := map[string]*sample{}, map[string]*sample{}
		for _, a := range plugins {
			adds[a.name], dels[a.name] = &sample{}, &sample{}
		}
		var empty sample
		for range 4 * opts.rounds {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			took, err := timed(exec.Command(filepath.Join(opts.peers, "empty")))
			if err != nil {
				return nil, err
			}
			empty.took = append(empty.took, took)
			for _, a := range plugins {
				if err := a.turn(adds[a.name], dels[a.name]); err != nil {
					return nil, err
				}
			}
		}
		if rep.EmptyMS == 0 {
			rep.EmptyMS = medianMS(empty)
		}
		for _, a := range plugins {
			rep.Rows = append(rep.Rows, ipamRow{a.name, leases, medianMS(*adds[a.name]), medianMS(*dels[a.name]), len(adds[a.name].took)})
		}
	}
	return rep, nil
}

func medianMS(s sample) float64 {
	return milliseconds(quantile(slices.Sorted(slices.Values(s.took)), 0.5))
}

// turn measures one ADD and one DEL. A slow plugin gets fewer turns.
func (a allocator) turn(adds, dels *sample) error {
	if n := len(adds.took); n >= slowTurns && adds.took[n-1] > slowOp {
		return nil
	}
	for _, step := range []struct {
		verb string
		to   *sample
	}{{"ADD", adds}, {"DEL", dels}} {
		took, err := timed(a.command(step.verb))
		if err != nil {
			return fmt.Errorf("%s of %s: %w", step.verb, a.name, err)
		}
		step.to.took = append(step.to.took, took)
	}
	return nil
}

// command returns the command that runs the IPAM plugin with this verb.
func (a allocator) command(verb string) *exec.Cmd {
	keys := map[string]any{"type": filepath.Base(a.path), "subnet": ipamSubnet}
	if a.pool {
		keys["pool"] = map[string]any{"etcd": map[string]any{"endpoints": []string{"http://127.0.0.1:2379"}}}
	} else {
		keys["dataDir"] = a.dir
	}
	conf, _ := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": networkName, "type": "bench", "ipam": keys}) // strings cannot fail to encode
	cmd := exec.Command(a.path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+containerID(0), "CNI_IFNAME=eth0",
		"CNI_NETNS=/proc/self/ns/net", "CNI_NETNS_OVERRIDE=1", "CNI_PATH="+filepath.Dir(a.path))
	cmd.Stdin = bytes.NewReader(conf)
	return cmd
}

// timed runs a program and returns how long it took.
func timed(cmd *exec.Cmd) (time.Duration, error) {
	began := time.Now()
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", cmd.Path, err, out)
	}
	return time.Since(began), nil
}

// containerID returns a container ID of 64 hexadecimal digits, as runtimes use.
func containerID(i int) string { return fmt.Sprintf("%016x%048x", uint64(i)*0x9E3779B97F4A7C15, i) }

// fillOurs leases addresses by calls of pkg/ipam. Running ADD for each of a million leases would
// take an hour.
func fillOurs(dir string, from, to int) error {
	if from == to {
		return nil
	}
	s, err := ipam.Open(dir, time.Minute)
	if err != nil {
		return err
	}
	pool, bad := ipam.Range{Subnet: netip.MustParsePrefix(ipamSubnet)}.Complete()
	r := ipam.Request{Sets: []ipam.Set{{pool}}}
	err = errors.Join(bad...)
	for i := from + 1; err == nil && i <= to; i++ {
		r.Attachment = ipam.Attachment{Network: networkName, Container: containerID(i), Interface: "eth0"}
		_, err = s.Reserve(r)
	}
	return errors.Join(err, s.Close())
}

// fillPool records two blocks of the host, as bridgeveth-pool does.
func fillPool(dir string, _, _ int) error {
	s, err := ipam.Open(dir, time.Minute)
	if err != nil {
		return err
	}
	now, err := ipam.SinceBoot()
	if err == nil {
		err = s.SetBlocks(networkName, now, []ipam.Block{
			{Subnet: netip.MustParsePrefix("10.1.0.0/26"), Revision: 1}, {Subnet: netip.MustParsePrefix("10.2.0.0/26"), Revision: 2},
		})
	}
	return errors.Join(err, s.Close())
}

// fillHostLocal writes the files of host-local: one file for each leased address, and one file with
// the last leased address.
func fillHostLocal(dir string, from, to int) error {
	dir = filepath.Join(dir, networkName)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	address := netip.MustParsePrefix(ipamSubnet).Addr().Next()
	for i := range to {
		if address = address.Next(); i < from {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, address.String()), []byte(containerID(i+1)+"\r\neth0"), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "last_reserved_ip.0"), []byte(address.String()), 0o600)
}

// row returns the times of an IPAM plugin with this number of leases, or nil if they were not
// measured.
func (r *ipamReport) row(plugin string, leases int) *ipamRow {
	for i := range r.Rows {
		if r.Rows[i].Plugin == plugin && r.Rows[i].Leases == leases {
			return &r.Rows[i]
		}
	}
	return nil
}

// print writes the report as a table.
func (r *ipamReport) print(w io.Writer) {
	fmt.Fprintf(w, "\nIPAM plugins by themselves, a process each; a Go program that does nothing takes %.2f ms\n", r.EmptyMS)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "plugin\tleases\tADD ms\tDEL ms\tADD/its ADD with 0\tADD/ours\t")
	for _, row := range r.Rows {
		var own, ours float64
		if first := r.row(row.Plugin, 0); first != nil {
			own = row.AddMS / first.AddMS
		}
		if other := r.row("ipam-simple", row.Leases); other != nil && other.Plugin != row.Plugin {
			ours = row.AddMS / other.AddMS
		}
		fmt.Fprintf(tw, "%s\t%d\t%.2f\t%.2f\t%s\t%s\t\n", row.Plugin, row.Leases, row.AddMS, row.DelMS, ratio(own), ratio(ours))
	}
	_ = tw.Flush() // a failure could not be printed either
}
