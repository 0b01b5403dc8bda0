package hostports

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/elements"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
)

// portKey is the length, in bytes, of protocol and port in the key of a map of host ports. Both are padded to
// four bytes.
const portKey = 8

// Mapping is a host port together with the element that represents it in one of the maps.
type Mapping struct {
	elements.Element
	port  plan.HostPort
	Owner elements.Owner // not set by mappings
}

// mappings returns the mappings for the host ports of a container with these addresses. A host port on all
// addresses has one mapping for each address family of the container.
func mappings(ports []plan.HostPort, addresses []netip.Prefix) (list []Mapping) {
	first := map[int]netip.Addr{}
	for _, a := range addresses {
		if family := netns.FamilyOf(a.Addr()); !first[family].IsValid() {
			first[family] = a.Addr()
		}
	}
	for _, p := range ports {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			if p.Address.IsValid() && netns.FamilyOf(p.Address) != family {
				continue
			}
			e := Mapping{Element: elements.Element{Family: family, Set: AnyAddress}, port: p}
			if p.Named() {
				e.Set, e.Key = OneAddress, p.Address.AsSlice()
			}
			e.Key = append(e.Key, p.Protocol, 0, 0, 0)
			e.Key = append(binary.BigEndian.AppendUint16(e.Key, p.Port), 0, 0)
			if to := first[family]; to.IsValid() {
				e.Value = append(binary.BigEndian.AppendUint16(to.AsSlice(), p.Container), 0, 0)
				list = append(list, e)
			}
		}
	}
	return list
}

func elementsOf(list []Mapping) (all []elements.Element) {
	for _, m := range list {
		all = append(all, m.Element)
	}
	return all
}

// find looks up the mapping with the key of m in nf_tables. It returns one mapping or none.
func find(n *netns.Namespace, m Mapping) ([]Mapping, error) {
	found, err := elements.Find(n, m.Family, m.Set, m.Key)
	return readMappings(found), err
}

func listMappings(n *netns.Namespace, family int, set string) ([]Mapping, error) {
	all, err := elements.List(n, family, set)
	return readMappings(all), err
}

// Published returns, from all maps of host ports, the mappings that the function chosen selects.
func Published(n *netns.Namespace, chosen func(Mapping) bool) (list []Mapping, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		for _, set := range []string{AnyAddress, OneAddress, portsWaiting} {
			found, err := listMappings(n, family, set)
			if err != nil {
				return nil, err
			}
			list = append(list, slices.DeleteFunc(found, func(m Mapping) bool { return !chosen(m) })...)
		}
	}
	return list, nil
}

func readMappings(found []elements.Element) (list []Mapping) {
	for _, e := range found {
		key := e.Key
		if e.Set == portsWaiting {
			key = key[min(len(key), unix.IFNAMSIZ):]
		}
		address, rest := len(key)-portKey, len(e.Value)-4
		if address < 0 || rest < 0 {
			continue // another program has added this element
		}
		m := Mapping{Element: e, Owner: elements.ParseOwner(e.Comment)}
		m.port.Address, _ = netip.AddrFromSlice(key[:address])
		m.port.Protocol = key[address]
		m.port.Port = binary.BigEndian.Uint16(key[address+4:])
		m.port.Container = binary.BigEndian.Uint16(e.Value[rest:])
		list = append(list, m)
	}
	return list
}

// Describe returns the host ports of all containers as text, without duplicates. The keys of the result are
// names of bridge ports (Attachment.Port). The text of a host port that waits names the interface that serves
// this host port.
func Describe(n *netns.Namespace) (map[string][]string, error) {
	all, err := Published(n, func(Mapping) bool { return true })
	list := map[string][]string{}
	for _, m := range all {
		text := m.port.String()
		if m.Set == portsWaiting {
			text += " (waits)"
			if i := slices.IndexFunc(all, func(s Mapping) bool { return s.Same(m.serving().Element) }); i >= 0 {
				text = fmt.Sprintf("%s (served by %s of network %s)", m.port, all[i].Owner.Interface, all[i].Owner.Network)
			}
		}
		if !slices.Contains(list[m.Owner.Port], text) { // a host port on all addresses is in the map of each family
			list[m.Owner.Port] = append(list[m.Owner.Port], text)
		}
	}
	for _, ports := range list {
		slices.Sort(ports)
	}
	return list, err
}

// Verify returns an error for each host port of p that does not lead to the container (see
// verify).
func Verify(n *netns.Namespace, p *plan.Port) error {
	var wrong []error
	for _, want := range mappings(p.HostPorts, p.Addresses) {
		wrong = append(wrong, verify(n, p, want))
	}
	return errors.Join(wrong...)
}
