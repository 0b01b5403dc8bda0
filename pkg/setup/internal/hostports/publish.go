package hostports

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/conntrack"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/elements"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// Publish adds all host ports of an attachment or none. If another attachment has one of the host ports, the
// error is a PortTakenError. But if the bridge port of that attachment does not exist any more, Publish deletes
// the host ports of that attachment and continues.
func Publish(n *netns.Namespace, p *plan.Port) error {
	list := mappings(p.HostPorts, p.Addresses)
	if len(list) == 0 {
		return nil
	}
	return nft.AtOneGeneration(n, func(seen uint32) error { return claim(n, seen, list, p.Attachment) })
}

// claim adds mappings for an attachment, and deletes the mappings that the new mappings replace. It searches for
// conflicts itself, because the kernel detects no conflict between mappings with different keys. The error is
// ERESTART if nf_tables has changed since the generation in the parameter seen.
func claim(n *netns.Namespace, seen uint32, list []Mapping, of plan.Attachment) error {
	gone, claimed, err := assign(n, list, of)
	if err != nil {
		return err
	}
	added := elementsOf(claimed)
	for i := range added {
		added[i].Comment = elements.Comment(of)
	}
	if err := elements.Change(n, seen, elementsOf(gone), added); err != nil {
		return fmt.Errorf("add host ports: %w", err)
	}
	return deleteFlows(n, append(gone, claimed...))
}

// assign searches for conflicts and returns the mappings to add (claimed) and to delete (gone). The mappings to
// delete are the old mappings of the attachment itself, and the mappings of bridge ports that do not exist any
// more. If another interface of the same container already serves a host port, assign returns a waiting mapping
// for this host port (see portsWaiting). A host port on all addresses conflicts with the same host
// port on one address, unless both belong to the same container.
func assign(n *netns.Namespace, list []Mapping, of plan.Attachment) (gone, claimed []Mapping, err error) {
	waiting, err := listWaiting(n)
	if err != nil {
		return nil, nil, err
	}
	alive := map[string]bool{}
	for _, m := range list {
		conflicting, err := conflicting(n, m)
		if err != nil {
			return nil, nil, err
		}
		var present []Mapping
		for _, r := range append(conflicting, waiting...) {
			if !m.overlaps(r) || slices.ContainsFunc(gone, func(g Mapping) bool { return g.Same(r.Element) }) {
				continue // r does not conflict with m, or gone already has r
			}
			exists, known := alive[r.Owner.Port]
			if !known && r.Owner.Port != of.Port() {
				if exists, err = portExists(n, r.Owner); err != nil {
					return nil, nil, err
				}
				alive[r.Owner.Port] = exists
			}
			if exists {
				present = append(present, r)
			} else {
				gone = append(gone, r)
			}
		}
		place, err := m.beside(present, of)
		if err != nil {
			return nil, nil, err
		}
		claimed = append(claimed, place)
	}
	return gone, claimed, nil
}

// conflicting returns the existing mappings that match packets for the same host address, protocol and host
// port as m. A mapping without an address matches every address.
func conflicting(n *netns.Namespace, m Mapping) (list []Mapping, err error) {
	if m.Set == AnyAddress {
		if list, err = listMappings(n, m.Family, OneAddress); err != nil {
			return nil, err
		}
		list = slices.DeleteFunc(list, func(found Mapping) bool { return !m.overlaps(found) })
	}
	same := []Mapping{m}
	if m.Set == OneAddress {
		same = append(same, Mapping{Element: elements.Element{Family: m.Family, Set: AnyAddress, Key: m.Key[len(m.Key)-portKey:]}})
	}
	for _, s := range same {
		found, err := find(n, s)
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	return list, nil
}

// Unpublish deletes the host ports of an attachment. The parameter known is optional. If it contains all host
// ports of the attachment, Unpublish is faster, because it need not read the host ports of all containers.
func Unpublish(n *netns.Namespace, a plan.Attachment, known []plan.HostPort) error {
	ours := func(m Mapping) bool { return m.Owner.Port == a.Port() }
	list, err := findKnown(n, known, ours)
	if err == nil && len(list) == 0 {
		list, err = Published(n, ours)
	}
	if err != nil {
		return err
	}
	return Delete(n, list)
}

// findKnown looks up the host ports in the parameter known. It returns the mappings that serve a host port, and
// the mappings that wait for a host port (see portsWaiting). The function ours selects the mappings of the
// attachment. If a host port in known has no mapping, findKnown returns nothing, because the attachment may have
// host ports that are not in known.
func findKnown(n *netns.Namespace, known []plan.HostPort, ours func(Mapping) bool) (list []Mapping, err error) {
	if len(known) == 0 {
		return nil, nil
	}
	waiting, err := listWaiting(n)
	if err != nil {
		return nil, err
	}
	waiting = slices.DeleteFunc(waiting, func(m Mapping) bool { return !ours(m) })
	both := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	for _, port := range known {
		before, waits := len(list), false
		for _, m := range mappings([]plan.HostPort{port}, both) {
			found, err := find(n, m)
			if err != nil {
				return nil, err
			}
			list = append(list, slices.DeleteFunc(found, func(m Mapping) bool { return !ours(m) })...)
			waits = waits || slices.ContainsFunc(waiting, func(w Mapping) bool { return w.serving().Same(m.Element) })
		}
		if len(list) == before && !waits {
			return nil, nil
		}
	}
	return append(list, waiting...), nil
}

// Delete deletes host ports and the conntrack entries for UDP packets to them. If another interface of
// the container waits for a host port, that interface serves the host port from then on.
func Delete(n *netns.Namespace, list []Mapping) error {
	if len(list) == 0 {
		return nil
	}
	err := deleteOrReplace(n, list)
	if errors.Is(err, unix.ENOENT) && len(list) > 1 { // another process has deleted one mapping, so the transaction failed
		err = nil
		for _, m := range list {
			err = errors.Join(err, Delete(n, []Mapping{m}))
		}
		return err
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete host ports: %w", err)
	}
	return deleteFlows(n, list)
}

// deleteFlows deletes the conntrack entries of UDP host ports whose mapping was added or deleted. Otherwise
// conntrack would send packets of old flows to the old container for as long as such packets arrive.
func deleteFlows(n *netns.Namespace, list []Mapping) error {
	var filters []conntrack.Filter
	for _, m := range list {
		if m.port.Protocol != unix.IPPROTO_UDP || m.Set == portsWaiting {
			continue
		}
		f := conntrack.Filter{Family: m.Family, Protocol: m.port.Protocol, Port: m.port.Port}
		if m.port.Named() {
			f.Destination = m.port.Address
		}
		filters = append(filters, f)
	}
	return conntrack.Delete(n, filters...)
}
