package hostports

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/elements"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// portsWaiting is the map of host ports that wait. A runtime sends the same host ports to each CNI network of a
// container. The interface that is attached first serves a host port: packets to the host port go to this
// interface. Each other interface waits for the host port: it has an element in this map, which no rule uses:
//
//	veth… . 0.0.0.0 . tcp . 8080 comment "PORT bridgeveth/NETWORK/CONTAINER/INTERFACE" : 10.89.0.2 . 80
//
// The key contains the name of the interface's port on the bridge. The address 0.0.0.0 means all addresses.
// When the serving interface is detached, a waiting interface replaces it in the same transaction.
const portsWaiting = "ports_waiting"

// The function waiting returns the mapping with which an attachment waits for the host port of m (see
// portsWaiting).
func (m Mapping) waiting(of plan.Attachment) Mapping {
	address := m.Key[:len(m.Key)-portKey]
	if len(address) == 0 {
		address = unspecified(m.Family).AsSlice()
	}
	m.Set, m.Key = portsWaiting, slices.Concat(elements.InterfaceKey(of.Port()), address, m.Key[len(m.Key)-portKey:])
	return m
}

// serving is the inverse of the function waiting: it returns the mapping that redirects packets to the interface
// that waited. A mapping that does not wait is returned unchanged.
func (m Mapping) serving() Mapping {
	if m.Set != portsWaiting {
		return m
	}
	m.Set, m.Key = OneAddress, m.Key[unix.IFNAMSIZ:]
	if address := len(m.Key) - portKey; !m.port.Named() {
		m.Set, m.Key = AnyAddress, m.Key[address:]
	}
	return m
}

func unspecified(family int) netip.Addr {
	if family == unix.AF_INET6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// overlaps reports whether two mappings match packets for the same host address, protocol and host port. A
// mapping without an address matches every address.
func (m Mapping) overlaps(other Mapping) bool {
	return m.Family == other.Family && m.port.Protocol == other.port.Protocol && m.port.Port == other.port.Port &&
		(!m.port.Named() || !other.port.Named() || m.port.Address == other.port.Address)
}

// shares reports whether two mappings redirect packets to the same port of the same container. The parameter
// "of" is the attachment of the mapping m, because m has no Owner yet.
func (m Mapping) shares(of plan.Attachment, other Mapping) bool {
	return other.Owner.Container == of.Container && other.port.Container == m.port.Container
}

// beside returns the mapping that an attachment (the parameter "of") may add for the host port of m, although
// other mappings exist. If another interface of the container serves the host port, the result waits. The error
// is a PortTakenError if the host port belongs to another container, or leads to another port of the same
// container.
func (m Mapping) beside(others []Mapping, of plan.Attachment) (place Mapping, err error) {
	place = m
	for _, r := range others {
		switch {
		case !m.overlaps(r):
		case r.Owner.Container != of.Container:
			return m, &plan.PortTakenError{HostPort: r.port, Holder: r.Owner.Attachment}
		case !r.Same(m.Element):
		case !m.shares(of, r):
			return m, &plan.PortTakenError{HostPort: r.port, Holder: r.Owner.Attachment}
		default:
			place = m.waiting(of)
		}
	}
	return place, nil
}

func portExists(n *netns.Namespace, o elements.Owner) (bool, error) {
	_, err := rtnl.ByName(n, o.Port)
	if rtnl.Absent(err) {
		return false, nil
	}
	return err == nil, err
}

func listWaiting(n *netns.Namespace) (list []Mapping, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		found, err := listMappings(n, family, portsWaiting)
		if err != nil {
			return nil, err
		}
		list = append(list, found...)
	}
	return list, nil
}

// successors returns a replacement for each mapping in the parameter gone: the first mapping that waits for the
// same host port. It skips a waiting mapping if the bridge port of this mapping does not exist, or if gone
// contains a mapping of this bridge port.
func successors(n *netns.Namespace, gone []Mapping) (list []Mapping, err error) {
	waiting, err := listWaiting(n)
	if err != nil || len(waiting) == 0 {
		return nil, err
	}
	leaving := map[string]bool{}
	for _, g := range gone {
		leaving[g.Owner.Port] = true
	}
	for _, g := range gone {
		for _, w := range waiting {
			if leaving[w.Owner.Port] || !w.serving().Same(g.Element) {
				continue
			}
			present, err := portExists(n, w.Owner)
			if err != nil {
				return nil, err
			}
			if present {
				list = append(list, w)
				break
			}
		}
	}
	return list, nil
}

// deleteOrReplace deletes mappings. If another mapping waits for the host port of a deleted mapping, the waiting
// mapping replaces the deleted mapping (see successors).
func deleteOrReplace(n *netns.Namespace, gone []Mapping) error {
	return nft.AtOneGeneration(n, func(seen uint32) error {
		successors, err := successors(n, gone)
		if err != nil {
			return err
		}
		var serving []elements.Element
		for _, s := range successors {
			e := s.serving().Element
			e.Comment = s.Comment
			serving = append(serving, e)
		}
		return elements.Change(n, seen, elementsOf(slices.Concat(gone, successors)), serving)
	})
}

// verify returns an error unless packets to a host port reach the container. Two cases are correct: the
// bridge port p serves the host port, or it waits while another interface of the container serves the host port.
func verify(n *netns.Namespace, p *plan.Port, want Mapping) error {
	what := fmt.Sprintf("host port %s to the container", want.port)
	present, err := find(n, want)
	if err != nil {
		return err
	}
	if len(present) == 0 {
		return plan.Differ(what, false, true)
	}
	holder := present[0]
	waits := false
	if holder.Owner.Port != p.Port() && want.shares(p.Attachment, holder) {
		if waits, err = portExists(n, holder.Owner); err != nil {
			return err
		}
	}
	if !waits {
		return plan.Differ(what, holder.Owner.Port == p.Port() && bytes.Equal(holder.Value, want.Value), true)
	}
	found, err := find(n, want.waiting(p.Attachment))
	if err != nil {
		return err
	}
	what += fmt.Sprintf(", behind interface %s of network %s that serves it", holder.Owner.Interface, holder.Owner.Network)
	return plan.Differ(what, len(found) == 1 && bytes.Equal(found[0].Value, want.Value), true)
}
