package inventory

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Restorable is an attachment with a record, or a network with containers that have no record. Its
// methods compare it with the host and repair it.
type Restorable struct {
	Name       string // for messages
	Network    string
	Attachment setup.Attachment // zero for a network

	restorer
}

// restorer has the methods of attachment.Part that a network also has.
type restorer interface {
	Missing() (network []string, port, err error)
	Repair() (restored []string, err error)
}

// Restorables lists the attachments that have a record and a port on the host, and the networks of ports
// without a record. networks are the configured networks. The list is valid even if err is not nil.
func (inv *Inventory) Restorables(host *setup.Host, networks []Network) (list []Restorable, err error) {
	found, err := host.Ports()
	if err != nil {
		return nil, err
	}
	ports := map[string]setup.FoundPort{} // by the result of Attachment.Port
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
			continue // attached by another plugin, or deleted
		}
		// A record with an unreadable configuration stays in the list: Missing and Repair return its error.
		if calls, err := r.calls(); err == nil && len(calls) == 0 {
			continue
		}
		list = append(list, Restorable{r.String(), r.Network, r.Attachment(), r})
		delete(ports, key)
	}
	unrecorded, err := inv.unrecorded(host, networks, ports)
	return append(list, unrecorded...), err
}

// unrecorded lists the networks of ports without a record, from configurations and leases. It skips a
// port that is on another bridge than the configured one, because the configuration has changed since
// the ADD of this port.
func (inv *Inventory) unrecorded(host *setup.Host, networks []Network, ports map[string]setup.FoundPort) (list []Restorable, err error) {
	type place struct{ network, bridge string }
	addresses := map[place][]attachment.Address{}
	err = inv.Stores(networks, func(s *ipam.Store) error {
		return EachLease(s, "", "", func(l ipam.Lease) {
			if p, plugged := ports[LeasedTo(l).Port()]; plugged {
				at := place{l.Network, p.Bridge} // bridge is "" if somebody has taken the port off it
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

// plannedNetwork is a network of which only the plan is known.
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
