package inventory

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Restorable is something that bvctl repair can restore: an attachment with a record, or a network
// whose containers have no record.
type Restorable struct {
	Name       string // for messages
	Network    string
	Attachment setup.Attachment // zero for a network

	restorer
}

// restorer contains the methods of attachment.Part that bvctl repair calls for attachments and for
// networks.
type restorer interface {
	Missing() (network []string, port, err error)
	Repair() (restored []string, err error)
}

// Restorables returns the attachments that have a record and a port on the host. For ports without
// a record, it returns their networks. The parameter networks contains the configured networks. The
// list is valid even if err is not nil. A repair by the host then keeps the host ports of all records
// (see setup.Host.Known).
func (inv *Inventory) Restorables(host *setup.Host, networks []Network) (list []Restorable, err error) {
	host.Known = attachment.KnownFrom(inv.CacheDir)
	found, err := host.Ports()
	if err != nil {
		return nil, err
	}
	ports := map[string]setup.FoundPort{} // by the name of the port, see Attachment.Port
	for _, p := range found {
		ports[p.Key] = p
	}
	records, err := inv.records()
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		key := r.Attachment().Port()
		if _, plugged := ports[key]; !plugged {
			continue // another plugin has attached the container, or its port was deleted
		}
		// A record whose configuration cannot be read stays in the list, so that Missing and
		// Repair return the error.
		if r = r.on(host); r.wrong == nil && len(r.calls) == 0 {
			continue
		}
		list = append(list, Restorable{r.String(), r.Network, r.Attachment(), r})
		delete(ports, key)
	}
	unrecorded, err := inv.unrecorded(host, networks, ports)
	return append(list, unrecorded...), err
}

// unrecorded returns the networks of ports that have no record. The parameter ports contains these
// ports. Instead of records, unrecorded reads the configurations and the leases. If a port is on
// another bridge than the configuration says, the configuration has changed since the port's ADD,
// and unrecorded skips the port.
func (inv *Inventory) unrecorded(host *setup.Host, networks []Network, ports map[string]setup.FoundPort) (list []Restorable, err error) {
	type place struct{ network, bridge string }
	addresses := map[place][]attachment.Address{}
	err = inv.Stores(networks, func(s *ipam.Store) error {
		return EachLease(s, "", "", func(l ipam.Lease) {
			if p, plugged := ports[LeasedTo(l).Port()]; plugged {
				at := place{l.Network, p.Bridge} // bridge is "" if somebody has removed the port from its bridge
				addresses[at] = append(addresses[at], attachment.Address{Prefix: l.Address, Gateway: l.Gateway})
			}
		})
	})
	for _, n := range networks {
		of := append(addresses[place{n.Name, cmp.Or(n.Bridge, setup.DefaultBridge)}], addresses[place{n.Name, ""}]...)
		if len(of) == 0 || !n.attaches() {
			continue
		}
		plan, failed := n.plan(of)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("network %s: %w", n.Name, failed))
			continue
		}
		list = append(list, Restorable{Name: "network " + n.Name, Network: n.Name, restorer: plannedNetwork{host, plan}})
	}
	return list, err
}

// plannedNetwork is the plan of a network on a host. It restores only the network, because the
// attachments are unknown.
type plannedNetwork struct {
	host *setup.Host
	plan *setup.Network
}

// Missing implements restorer.
func (n plannedNetwork) Missing() (network []string, port, err error) {
	network, err = n.host.Missing(n.plan)
	return network, nil, err
}

// Repair implements restorer.
func (n plannedNetwork) Repair() (restored []string, err error) { return n.host.RepairNetwork(n.plan) }
