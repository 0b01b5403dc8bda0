package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/host"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/stock"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

// ErrFound means that Check has printed at least one contradiction.
var ErrFound = errors.New("contradictions found")

// finding is a contradiction. cure is the command or action that ends it.
type finding struct{ what, cure string }

// checker compares what etcd and the store of this host say about the blocks.
type checker struct {
	*pool
	self     host.Host
	findings []finding
}

// Check compares etcd and the store of this host, and prints each contradiction with its cure. It
// changes nothing. No process of this host changes blocks of the networks meanwhile: they wait.
func Check(ctx context.Context, networks []*ipamconfig.Config, self host.Host, w io.Writer) error {
	for _, c := range networks {
		lock, err := stock.Lock(c.DataDir, c.Name)
		if err != nil {
			return err
		}
		defer lock.Unlock()
	}
	pools, err := surveyed(ctx, networks, self)
	if err != nil {
		return err
	}
	hosts, blocks, found := 0, 0, false
	for _, p := range pools {
		c := &checker{pool: p, self: self}
		if err := c.check(); err != nil {
			return err
		}
		for _, f := range c.findings {
			fmt.Fprintf(w, "%s\n  fix: %s\n", f.what, f.cure)
		}
		hosts, blocks, found = hosts+len(p.survey.States), blocks+len(p.survey.Owners), found || len(c.findings) > 0
	}
	if found {
		return ErrFound
	}
	_, err = fmt.Fprintf(w, "%d hosts, %d blocks: no contradictions found\n", hosts, blocks)
	return err
}

// check adds the findings about a pool.
func (c *checker) check() error {
	for _, err := range c.survey.Bad {
		what, cure := err.Error(), "none known"
		if i := strings.LastIndex(what, "; "); i >= 0 {
			what, cure = what[:i], what[i+2:]
		}
		c.add(cure, "%s", what)
	}
	c.checkSizes()
	for _, s := range c.survey.Sorted() {
		c.checkState(s)
	}
	for _, b := range slices.SortedFunc(maps.Keys(c.survey.Owners), func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) }) {
		of := c.survey.Owners[b]
		if s := c.survey.States[of]; s == nil || !s.Owns(b) {
			c.add(fmt.Sprintf("make sure that %s has no container with an address of the block (run bvctl pool check there), then etcdctl del %s", c.describe(of), c.key("blocks/"+b.String())),
				"block %s belongs to %s, but is not in the list of that host: no host gives out its addresses", b, c.describe(of))
		}
	}
	for _, n := range c.networks {
		if err := c.checkNetwork(n); err != nil {
			return err
		}
	}
	return nil
}

// add adds a finding.
func (c *checker) add(cure, format string, args ...any) {
	c.findings = append(c.findings, finding{fmt.Sprintf(format, args...), cure})
}

// key returns a key of the pool in etcd.
func (c *checker) key(name string) string {
	return registry.Key(c.networks[0].Pool.Server.Prefix, name)
}

// describe names a network of a host.
func (c *checker) describe(of registry.Owner) string {
	name := of.Host
	if s := c.survey.States[of]; s != nil && s.Name != "" {
		name = s.Name + " (" + of.Host + ")"
	}
	return fmt.Sprintf("host %s, network %s", name, of.Network)
}

// checkSizes compares the size of all blocks with the size of the pool, and with the configuration.
func (c *checker) checkSizes() {
	missing := map[string]int{}
	for b, of := range c.survey.Owners {
		size, known := c.survey.Sizes[registry.Family(b.Addr())]
		switch {
		case !known:
			missing[registry.Family(b.Addr())] = b.Bits()
		case b.Bits() != size:
			c.add(fmt.Sprintf("make sure that %s has no container with an address of the block, then etcdctl del %s and etcdctl del %s",
				c.describe(of), c.key("blocks/"+b.String()), c.key("owned/"+of.Host+"/"+of.Network+"/"+b.String())),
				"block %s of %s is not a /%d, as the other blocks of the pool: two hosts can own the same addresses", b, c.describe(of), size)
		}
	}
	for of, bits := range missing {
		c.add(fmt.Sprintf(`etcdctl put %s '{"version":1,"block":%d}'`, c.key("size/"+of), bits),
			"etcd key %s is missing: a host with another block size can claim addresses of other hosts", c.key("size/"+of))
	}
	for _, n := range c.networks {
		for _, set := range n.Sets {
			of := set[0].Start
			size, known := c.survey.Sizes[registry.Family(of)]
			if bits := n.Pool.BlockBits(set); known && bits != size {
				key := map[string]string{"ipv4": "block", "ipv6": "block6"}[registry.Family(of)]
				c.add(fmt.Sprintf("set ipam.pool.%s to %d, as on the other hosts", key, size),
					"network %s: ipam.pool.%s is %d, and the blocks of the pool are /%d: this host can claim no block", n.Name, key, bits, size)
			}
		}
	}
}

// checkState compares the list of a host with the owners of the blocks.
func (c *checker) checkState(s *registry.State) {
	who := c.describe(s.Owner)
	if len(s.Blocks) > 0 && !s.Recorded && !s.Fenced {
		c.add("start bridgeveth-pool on that host; if the host is down, bvctl pool release --host "+s.Host, "%s owns %d blocks and has no record in etcd: the blocks are lost", who, len(s.Blocks))
	}
	if s.Fenced && !s.Waits {
		c.add("bvctl pool forget --host "+s.Host, "%s is forgotten, and its grace time has not begun: its blocks are lost", who)
	}
	for _, b := range s.Blocks {
		owner, owned := c.survey.Owners[b.Block]
		what := "belongs to " + c.describe(owner) + ": both hosts can give out the same addresses"
		switch {
		case !owned:
			what = "has no owner: another host can claim it, and give out the same addresses"
		case owner == s.Owner:
			continue
		}
		c.add(fmt.Sprintf("etcdctl del %s; run bridgeveth-pool claim on %s; then create the containers again that bvctl pool check finds there", c.key("owned/"+s.Host+"/"+s.Network+"/"+b.Block.String()), who),
			"%s has block %s in its list, but the block %s", who, b.Block, what)
	}
}

// checkNetwork compares the store of this host with etcd.
func (c *checker) checkNetwork(n *ipamconfig.Config) error {
	own := registry.Owner{Host: c.self.ID, Network: n.Name}
	store, err := ipam.OpenExisting(n.DataDir, lockWait)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was leased since the boot, and etcd was not heard
	}
	if err != nil {
		return err
	}
	defer store.Close()
	heard, blocks, known, err := store.Blocks(n.Name)
	if err != nil {
		return err
	}
	if known {
		if err := c.checkHeard(own, heard); err != nil {
			return err
		}
		c.checkBlocks(own, blocks)
	}
	leases, err := store.Leases(n.Name)
	for _, l := range leases {
		c.checkLease(n, own, l)
	}
	return err
}

// checkHeard looks for reasons why ADD may give out no address although the store has blocks.
func (c *checker) checkHeard(own registry.Owner, heard time.Duration) error {
	now, err := ipam.SinceBoot()
	if err != nil {
		return err
	}
	if age := now - heard; age > ipam.OfflineTime {
		c.add("systemctl restart bridgeveth-pool; see journalctl -u bridgeveth-pool",
			"network %s: this host has last heard from etcd %s ago, and gives out no address after %s", own.Network, age.Truncate(time.Minute), ipam.OfflineTime)
	}
	switch s := c.survey.States[own]; {
	case s == nil:
	case s.Fenced:
		c.add("wait until the grace time of 25 hours is over", "network %s: the record of this host was deleted: it gives out no address", own.Network)
	case s.Recorded && s.Boot != c.self.Boot:
		c.add("give each machine its own /etc/machine-id and reboot", "network %s: etcd has a record of this host of boot %s, and this is boot %s: another machine has the identity of this host",
			own.Network, s.Boot, c.self.Boot)
	}
	return nil
}

// checkBlocks compares the blocks in the store with those that etcd gives to this host.
func (c *checker) checkBlocks(own registry.Owner, blocks []ipam.Block) {
	inStore := map[netip.Prefix]bool{}
	for _, b := range blocks {
		inStore[b.Subnet] = true
		if owner, owned := c.survey.Owners[b.Subnet]; owner != own {
			what := "belongs to " + c.describe(owner) + " in etcd: both hosts can give out the same addresses"
			if !owned {
				what = "has no owner in etcd: another host can claim it, and give out the same addresses"
			}
			c.add("bridgeveth-pool claim; then run bvctl pool check again", "network %s: block %s is in the store of this host, but %s", own.Network, b.Subnet, what)
		}
	}
	s := c.survey.States[own]
	if s == nil || s.Fenced {
		return
	}
	for _, b := range s.Blocks {
		if !inStore[b.Block] && c.survey.Owners[b.Block] == own {
			c.add("none needed if the service runs: it adds the block within a minute; otherwise bridgeveth-pool claim",
				"network %s: block %s belongs to this host in etcd, but is not in its store: no container gets an address of the block", own.Network, b.Block)
		}
	}
}

// checkLease adds a finding if the address of a lease is in a block of another host, or of no host.
func (c *checker) checkLease(n *ipamconfig.Config, own registry.Owner, l ipam.Lease) {
	for _, set := range n.Sets {
		a := l.Address.Addr()
		if !set.Serves(a) {
			continue
		}
		b, _ := a.Prefix(n.Pool.BlockBits(set))
		owner, owned := c.survey.Owners[b]
		if owner == own {
			continue
		}
		what := "belongs to " + c.describe(owner) + ": that host can give out the same address"
		cure := fmt.Sprintf("delete the container and create it again; if it does not run any more, bvctl leases release --network %s --address %s", n.Name, a)
		if l.Kept() {
			cure = fmt.Sprintf("bvctl leases release --network %s --address %s", n.Name, a)
		}
		if !owned {
			what, cure = "has no owner: another host can claim it, and give out the same address", "bridgeveth-pool claim, which claims the block"
		}
		c.add(cure, "network %s: %s is leased to container %s, interface %s, but block %s %s", n.Name, a, l.Container, l.Interface, b, what)
	}
}
