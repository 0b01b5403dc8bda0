package main

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/plugins/bridgeveth"
)

// need is what a container with a record needs of the host, or a network with containers
// that have none.
type need struct {
	of         string // whose it is, in words
	network    string
	attachment setup.Attachment // of the container; zero for a network

	lost   func() (network []string, port, err error) // what is not as it should be; it changes nothing
	repair func() (mended []string, err error)
}

// needs lists those of all containers that have their port; networks are those configured.
func (h *host) needs(ns *setup.Host, networks []network) (list []need, err error) {
	found, err := ns.Ports()
	if err != nil {
		return nil, err
	}
	ports := map[string]setup.FoundPort{} // by Attachment.Port
	for _, p := range found {
		ports[p.Key] = p
	}
	records, err := h.records()
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		key := r.attachment().Port()
		if _, plugged := ports[key]; !plugged {
			continue // of another plugin, or of a container that is gone
		}
		call, wrong := r.attached()
		if call == nil && wrong == nil {
			continue
		}
		n := need{of: r.String(), network: r.Network, attachment: r.attachment()}
		if wrong != nil {
			n.lost = func() ([]string, error, error) { return nil, nil, wrong }
			n.repair = func() ([]string, error) { return nil, wrong }
		} else {
			n.lost = func() ([]string, error, error) { return r.lost(call) }
			n.repair = func() ([]string, error) { return r.repair(call) }
		}
		list = append(list, n)
		delete(ports, key)
	}
	unrecorded, err := h.networksOf(ns, networks, ports)
	return append(list, unrecorded...), err
}

// networksOf lists what networks need, by their configuration, for containers of which no
// more is known than their ports and leases. A port on another bridge than the
// configuration's was made by another one.
func (h *host) networksOf(ns *setup.Host, networks []network, ports map[string]setup.FoundPort) (list []need, err error) {
	type place struct{ network, bridge string }
	addresses := map[place][]bridgeveth.Address{}
	err = h.withStores(networks, func(s *ipam.Store) error {
		return filter{}.each(s, func(l ipam.Lease) {
			if p, plugged := ports[attachmentOf(l).Port()]; plugged {
				at := place{l.Network, p.Bridge} // no bridge if it was taken off
				addresses[at] = append(addresses[at], bridgeveth.Address{Prefix: l.Address, Gateway: l.Gateway})
			}
		})
	})
	for _, n := range networks {
		of := append(addresses[place{n.Name, cmp.Or(n.Bridge, setup.DefaultBridge)}], addresses[place{n.Name, ""}]...)
		if len(of) == 0 || n.Type != bridgeveth.Name && n.Type != bridgeveth.Reference {
			continue
		}
		wanted, wrong := n.wanted(of)
		if wrong != nil {
			err = errors.Join(err, fmt.Errorf("network %s: %w", n.Name, wrong))
			continue
		}
		list = append(list, need{
			of: "network " + n.Name, network: n.Name,
			lost:   func() ([]string, error, error) { missing, err := ns.Missing(wanted); return missing, nil, err },
			repair: func() ([]string, error) { return ns.RepairNetwork(wanted) },
		})
	}
	return list, err
}
