package setup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// portKey is how much of a key protocol and port take, in bytes: each a multiple of four.
const portKey = 8

// mapping is a host port as an element of one of the maps.
type mapping struct {
	element
	port  HostPort
	owner portOwner // of one that was found
}

// mappings lists where the host ports of a container belong: a port of any address in
// both families, as far as the container has an address of them.
func mappings(ports []HostPort, addresses []netip.Prefix) (list []mapping) {
	first := map[int]netip.Addr{}
	for _, a := range addresses {
		if family := familyOf(a.Addr()); !first[family].IsValid() {
			first[family] = a.Addr()
		}
	}
	for _, p := range ports {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			if p.Address.IsValid() && familyOf(p.Address) != family {
				continue
			}
			e := mapping{element: element{family: family, set: portsOfAny}, port: p}
			if p.named() {
				e.set, e.key = portsOfOne, p.Address.AsSlice()
			}
			e.key = append(e.key, p.Protocol, 0, 0, 0)
			e.key = append(binary.BigEndian.AppendUint16(e.key, p.Port), 0, 0)
			if to := first[family]; to.IsValid() {
				e.value = append(binary.BigEndian.AppendUint16(to.AsSlice(), p.Container), 0, 0)
				list = append(list, e)
			}
		}
	}
	return list
}

// elementsOf are the mappings as elements.
func elementsOf(list []mapping) (elements []element) {
	for _, m := range list {
		elements = append(elements, m.element)
	}
	return elements
}

// find looks up a host port by its key: there is one or none.
func (n *Namespace) find(m mapping) ([]mapping, error) {
	found, err := n.element(m.family, m.set, m.key)
	return readMappings(found), err
}

// list lists the host ports of a map.
func (n *Namespace) list(family int, set string) ([]mapping, error) {
	all, err := n.elements(family, set)
	return readMappings(all), err
}

// published lists the chosen host ports of all maps.
func (n *Namespace) published(chosen func(mapping) bool) (list []mapping, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		for _, set := range []string{portsOfAny, portsOfOne, portsWaiting} {
			found, err := n.list(family, set)
			if err != nil {
				return nil, err
			}
			list = append(list, slices.DeleteFunc(found, func(m mapping) bool { return !chosen(m) })...)
		}
	}
	return list, nil
}

// readMappings reads the host ports out of keys and values.
func readMappings(elements []element) (list []mapping) {
	for _, e := range elements {
		key := e.key
		if e.set == portsWaiting {
			key = key[min(len(key), unix.IFNAMSIZ):]
		}
		address, rest := len(key)-portKey, len(e.value)-4
		if address < 0 || rest < 0 {
			continue // none of ours
		}
		m := mapping{element: e, owner: parseOwner(e.comment)}
		m.port.Address, _ = netip.AddrFromSlice(key[:address])
		m.port.Protocol = key[address]
		m.port.Port = binary.BigEndian.Uint16(key[address+4:])
		m.port.Container = binary.BigEndian.Uint16(e.value[rest:])
		list = append(list, m)
	}
	return list
}

// HostPorts lists the host ports of all containers in words, each once, by the Port of the
// attachment that they lead to. One that waits is told with the interface that serves it.
func (n *Namespace) HostPorts() (map[string][]string, error) {
	all, err := n.published(func(mapping) bool { return true })
	list := map[string][]string{}
	for _, m := range all {
		text := m.port.String()
		if m.set == portsWaiting {
			text += " (waits)"
			if i := slices.IndexFunc(all, func(s mapping) bool { return s.same(m.serving().element) }); i >= 0 {
				text = fmt.Sprintf("%s (served by %s of network %s)", m.port, all[i].owner.Interface, all[i].owner.Network)
			}
		}
		if !slices.Contains(list[m.owner.port], text) { // of both families
			list[m.owner.port] = append(list[m.owner.port], text)
		}
	}
	for _, ports := range list {
		slices.Sort(ports)
	}
	return list, err
}

// verifyHostPorts compares the host ports of a port with the maps.
func (n *Namespace) verifyHostPorts(p *Port) error {
	var wrong []error
	for _, want := range mappings(p.HostPorts, p.Addresses) {
		wrong = append(wrong, n.verifyHostPort(p, want))
	}
	return errors.Join(wrong...)
}
