package hostports

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/elements"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// Known returns the elements of one family for the host ports of the known attachments. It skips an
// attachment whose bridge port does not exist any more. If two containers claim the same host port, the first
// container gets it.
func Known(n *netns.Namespace, family int, known func() ([]*plan.Port, error)) (list []elements.Element, err error) {
	ports, err := known()
	if err != nil {
		return nil, err
	}
	added := map[string][]Mapping{} // by protocol and port
	for _, p := range ports {
		exists, err := portExists(n, elements.Owner{Port: p.Port(), Attachment: p.Attachment})
		if err != nil {
			return nil, err
		}
		if !exists {
			continue
		}
		addresses := slices.DeleteFunc(slices.Clone(p.Addresses), func(a netip.Prefix) bool { return netns.FamilyOf(a.Addr()) != family })
		for _, m := range mappings(p.HostPorts, addresses) {
			port := string(m.Key[len(m.Key)-portKey:])
			place, err := m.beside(added[port], p.Attachment)
			if err != nil {
				continue // the repair reports this conflict
			}
			place.Owner, place.Comment = elements.Owner{Port: p.Port(), Attachment: p.Attachment}, elements.Comment(p.Attachment)
			added[port] = append(added[port], place)
			list = append(list, place.Element)
		}
	}
	return list, nil
}

// DeleteOrphans deletes the host ports of all bridge ports that do not exist any more. Call DeleteOrphans after a
// transaction with the result of Known: a DEL that deleted its bridge port before this transaction may have found
// no map.
func DeleteOrphans(n *netns.Namespace) error {
	gone, err := Published(n, func(m Mapping) bool {
		exists, err := portExists(n, m.Owner)
		return err == nil && !exists
	})
	return errors.Join(err, Delete(n, gone))
}
