package metrics

import (
	"errors"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/inspect"
	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/leases"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// collector reads the host, and adds what it has read to the table.
type collector struct {
	table
	inv      *inventory.Inventory
	host     *setup.Host
	networks []inventory.Network
	warn     func(error)
	warned   map[string]bool // the texts of the errors so far
}

// collect returns the metrics of this host. It prints errors by inv.Warn, counts them, and
// continues.
func collect(inv *inventory.Inventory) (table, error) {
	host, err := setup.CurrentHost()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	host.RememberNetworks()
	own := *inv
	c := &collector{table: newTable(), inv: &own, host: host, warn: inv.Warn, warned: map[string]bool{}}
	own.Warn = c.fail
	c.add("bridgeveth_build_info", 1, plugin.Version)
	c.add("bridgeveth_read_errors", 0)
	c.networks = own.Networks()
	c.attachments()
	c.leases()
	c.pools()
	c.missing()
	c.drops()
	return c.table, nil
}

// fail prints and counts an error. Several functions read the same files, so it ignores an error that
// it has seen before.
func (c *collector) fail(err error) {
	if err == nil || c.warned[err.Error()] {
		return
	}
	c.warned[err.Error()] = true
	c.warn(err)
	c.add("bridgeveth_read_errors", 1)
}

// attachments adds the attachments, the host ports, and the ports of bridges.
func (c *collector) attachments() {
	list, err := inspect.Attachments(c.inv, c.host)
	c.fail(err)
	ports, err := c.host.PortCounts()
	c.fail(err)
	names := map[string]bool{}
	for _, n := range c.networks {
		if plugin.IsBridgeveth(n.Type) {
			names[n.Name] = true
		}
	}
	bridges := map[string]bool{}
	for _, a := range list {
		names[a.Network] = true
		bridges[a.Bridge] = true
		c.add("bridgeveth_attachments", 1, a.Network, a.State)
		for _, p := range a.HostPorts {
			protocol, _, _ := strings.Cut(p, " ")
			c.add("bridgeveth_host_ports", 1, a.Network, protocol)
		}
	}
	for name := range names {
		for _, state := range inspect.States {
			c.add("bridgeveth_attachments", 0, name, state)
		}
	}
	for bridge := range bridges {
		if bridge != "" {
			c.add("bridgeveth_bridge_ports", uint64(ports[bridge]), bridge)
		}
	}
}

// leases adds the leases and the ranges.
func (c *collector) leases() {
	list, err := leases.List(c.inv, c.networks)
	c.fail(err)
	for _, l := range list.Leases {
		c.add("bridgeveth_leases", 1, l.Network, l.State)
	}
	for _, r := range list.Ranges {
		family := "ipv4"
		if strings.Contains(r.Range, ":") {
			family = "ipv6"
		}
		c.add("bridgeveth_range_addresses", r.Size, r.Network, r.Range, family)
		c.add("bridgeveth_range_leased_addresses", r.Leased, r.Network, r.Range, family)
		for _, state := range leases.States {
			c.add("bridgeveth_leases", 0, r.Network, state)
		}
	}
}

// pools adds the blocks of shared pools. It does not call etcd.
func (c *collector) pools() {
	now, err := ipam.SinceBoot()
	c.fail(err)
	known := map[string]bool{}
	add := func(network string, blocks int, free uint64, heard time.Duration) {
		known[network] = true
		c.add("bridgeveth_pool_blocks", uint64(blocks), network)
		c.add("bridgeveth_pool_free_addresses", free, network)
		c.add("bridgeveth_pool_etcd_silence_seconds", uint64((now-heard)/time.Second), network)
	}
	each := func(visit func(*inventory.Network) error) error {
		var bad []error
		for i := range c.networks {
			if n := &c.networks[i]; n.SharesPool() && !known[n.Name] {
				bad = append(bad, visit(n))
			}
		}
		return errors.Join(bad...)
	}
	c.fail(c.inv.Stores(c.networks, func(s *ipam.Store) error {
		return each(func(n *inventory.Network) error {
			heard, blocks, here, err := s.Blocks(n.Name)
			if err != nil || !here {
				return err
			}
			sets, err := n.Sets()
			if err != nil {
				return err
			}
			free, err := s.Room(n.Name, sets)
			if err == nil {
				add(n.Name, len(blocks), free, heard)
			}
			return err
		})
	}))
	c.fail(each(func(n *inventory.Network) error { // etcd was not heard since the boot
		add(n.Name, 0, 0, 0)
		return nil
	}))
}

// missing adds what bvctl repair would restore.
func (c *collector) missing() {
	all, err := c.inv.Restorables(c.host, c.networks)
	c.fail(err)
	type part struct{ network, what string }
	seen := map[part]bool{}
	for _, r := range all {
		network, port, err := r.Missing()
		c.fail(err)
		for _, what := range network { // all containers of a network report the same missing parts of the network
			if p := (part{r.Network, what}); !seen[p] {
				seen[p] = true
				c.add("bridgeveth_missing_parts", 1, r.Network, "network")
			}
		}
		ports := uint64(0)
		if port != nil {
			ports = 1
		}
		c.add("bridgeveth_missing_parts", 0, r.Network, "network")
		c.add("bridgeveth_missing_parts", ports, r.Network, "port")
	}
}

// drops adds the counters of the rules that drop packets.
func (c *collector) drops() {
	list, err := c.host.Drops()
	c.fail(err)
	families := map[int]string{unix.AF_INET: "ip", unix.AF_INET6: "ip6", unix.AF_BRIDGE: "bridge"}
	for _, d := range list {
		c.add("bridgeveth_dropped_packets_total", d.Packets, families[d.Family], d.Bridge, d.Rule)
		c.add("bridgeveth_dropped_bytes_total", d.Bytes, families[d.Family], d.Bridge, d.Rule)
	}
}
