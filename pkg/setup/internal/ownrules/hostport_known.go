package ownrules

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// addHostPorts adds a feature of hostPortFeature. If the maps of host ports do not exist, the same transaction
// fills the new maps with the host ports of the known attachments. Otherwise, ADD could give the host port of a
// running container to another container until the next repair. The function known returns the attachments
// that had host ports, with the fields Attachment, Addresses and HostPorts.
func addHostPorts(n *netns.Namespace, f feature, known func() ([]*plan.Port, error)) error {
	filled := false
	f.elements = func(n *netns.Namespace) ([]element, error) {
		filled = true
		return knownMappings(n, f.family, known)
	}
	if err := addFeature(n, f); err != nil || !filled {
		return err
	}
	// A DEL that deleted its port before this transaction may have found no map.
	gone, err := Published(n, func(m Mapping) bool {
		exists, err := portExists(n, m.Owner)
		return err == nil && !exists
	})
	return errors.Join(err, DeleteMappings(n, gone))
}

// knownMappings returns the elements of one family for the host ports of the known attachments. It skips an
// attachment whose bridge port does not exist any more. If two containers claim the same host port, the first
// container gets it.
func knownMappings(n *netns.Namespace, family int, known func() ([]*plan.Port, error)) (list []element, err error) {
	ports, err := known()
	if err != nil {
		return nil, err
	}
	added := map[string][]Mapping{} // by protocol and port
	for _, p := range ports {
		exists, err := portExists(n, PortOwner{p.Port(), p.Attachment})
		if err != nil {
			return nil, err
		}
		if !exists {
			continue
		}
		addresses := slices.DeleteFunc(slices.Clone(p.Addresses), func(a netip.Prefix) bool { return netns.FamilyOf(a.Addr()) != family })
		for _, m := range mappings(p.HostPorts, addresses) {
			port := string(m.key[len(m.key)-portKey:])
			place, err := m.beside(added[port], p.Attachment)
			if err != nil {
				continue // the repair reports this conflict
			}
			place.Owner, place.comment = PortOwner{p.Port(), p.Attachment}, PortComment(p.Attachment)
			added[port] = append(added[port], place)
			list = append(list, place.element)
		}
	}
	return list, nil
}
