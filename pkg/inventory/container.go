package inventory

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Container is an attachment, with the facts about it from the kernel, libcni's record and the
// leases.
type Container struct {
	setup.Attachment
	Pod         string          // NAMESPACE/NAME, or ""
	Namespace   string          // path of the network namespace; "" if unknown
	Port        setup.FoundPort // Port.Key is "" if the port is missing
	Bridge      string          // the bridge that the port should be on
	Addresses   []netip.Prefix
	Routes      []setup.Route                  // in the main table, from the result of ADD
	MasqExclude []string                       // subnets, from the record
	gateways    []netip.Addr                   // from the container's leases
	Since       time.Time                      // when the address was leased; zero if unknown
	Verify      func() (host, container error) // Record.Verify; nil without a record
}

// DisplayName returns the name of the pod, or else the container's ID.
func (c *Container) DisplayName() string { return cmp.Or(c.Pod, c.Container) }

// Containers lists the attachments of bridgeveth that have a port on the host or a record of
// libcni. The list is sorted by bridge, network and name. It is valid even if err is not nil. The
// parameter networks contains the configured networks, which name the lease stores and the bridges.
func (inv *Inventory) Containers(host *setup.Host, networks []Network) (list []*Container, err error) {
	ports, err := host.Ports()
	if err != nil {
		return nil, err
	}
	byKey := map[string]*Container{}
	for _, p := range ports {
		c := &Container{Attachment: p.Attachment, Port: p, Bridge: p.Bridge}
		byKey[p.Key] = c
		list = append(list, c)
	}
	records, err := inv.records()
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		r = r.on(host)
		if r.wrong != nil {
			inv.Warn(fmt.Errorf("%s: %w", r, r.wrong))
		}
		if len(r.calls) == 0 {
			continue
		}
		c := byKey[r.Attachment().Port()]
		if c == nil {
			c = &Container{Port: setup.FoundPort{Name: r.Attachment().Port()}}
			byKey[c.Port.Name] = c
			list = append(list, c)
		}
		c.addRecord(r)
		var conf struct {
			Bridge      string   `json:"bridge"`
			MasqExclude []string `json:"masqExclude"`
		}
		_ = plugin.Read(r.calls[0].StdinData, &conf, "") // a key with a mistake counts as missing; Verify reports the mistake
		c.Bridge, c.MasqExclude = cmp.Or(conf.Bridge, setup.DefaultBridge), conf.MasqExclude
	}
	err = inv.Stores(networks, func(s *ipam.Store) error {
		return EachLease(s, "", "", func(l ipam.Lease) {
			if c := byKey[LeasedTo(l).Port()]; c != nil && l.Until.IsZero() {
				c.addLease(l)
			}
		})
	})
	for _, c := range list {
		if c.Verify == nil {
			c.Bridge = inv.configuredBridge(c, host, networks)
		}
	}
	slices.SortFunc(list, func(a, b *Container) int {
		return cmp.Or(strings.Compare(a.Bridge, b.Bridge), strings.Compare(a.Network, b.Network), strings.Compare(a.DisplayName(), b.DisplayName()), strings.Compare(a.Interface, b.Interface))
	})
	return list, err
}

// addRecord adds the facts in libcni's record to c.
func (c *Container) addRecord(r Record) {
	c.Attachment, c.Pod, c.Namespace, c.Verify = r.Attachment(), r.Pod(), r.Namespace, r.Verify
	c.Addresses, c.Routes = r.addresses()
}

// addLease adds the facts in a lease to c.
func (c *Container) addLease(l ipam.Lease) {
	c.Since = l.Time
	c.Namespace = cmp.Or(c.Namespace, l.Namespace.Path)
	c.Attachment = LeasedTo(l)
	if !slices.Contains(c.Addresses, l.Address) && !l.Address.IsSingleIP() {
		c.Addresses = append(c.Addresses, l.Address)
	}
	if l.Gateway.IsValid() {
		c.gateways = append(c.gateways, l.Gateway)
	}
}

// configuredBridge returns the bridge for the port of a container without a record. If the port is
// on no bridge, this is the bridge in the network's configuration.
//
// If the port is on another bridge, configuredBridge returns this other bridge, because the
// configuration may be newer than the port. In two cases, it returns the configured bridge instead:
//
//   - The port's bridge is the configured bridge under a new name.
//   - Only the configured bridge has the container's gateway address.
func (inv *Inventory) configuredBridge(c *Container, host *setup.Host, networks []Network) string {
	i := slices.IndexFunc(networks, func(n Network) bool { return n.Name == c.Network && n.attaches() })
	if i < 0 {
		return c.Bridge
	}
	configured := cmp.Or(networks[i].Bridge, setup.DefaultBridge)
	if c.Bridge == "" || c.Bridge == configured {
		return configured
	}
	renamed, err := host.RenamedTo(configured)
	if err != nil {
		inv.Warn(err)
	}
	if renamed == c.Bridge || inv.hasGateway(c, host, configured) && !inv.hasGateway(c, host, c.Bridge) {
		return configured
	}
	return c.Bridge
}

// hasGateway reports whether a bridge has the address of one of the container's gateways.
func (inv *Inventory) hasGateway(c *Container, host *setup.Host, bridge string) bool {
	addresses, err := setup.Addresses(host.Namespace, bridge)
	if err != nil {
		inv.Warn(err)
	}
	return slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return slices.Contains(c.gateways, p.Addr()) })
}
