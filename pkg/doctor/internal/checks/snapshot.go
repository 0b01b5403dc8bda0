package checks

import (
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Snapshot holds the bridge ports and the FORWARD chains of the host, and the links, addresses and
// neighbour entries of the host and of its containers. For each address, it holds the links that have
// the address. All paths share one Snapshot.
type Snapshot struct {
	links      map[place]netlink.Link
	holders    map[netip.Addr][]holder
	addresses  map[*End][]kernel.Address  // of each container
	ports      map[string]setup.FoundPort // by name
	neighbours map[neighbour]bool
	refused    map[int]uint64     // kernel.NeighbourTable.Refused, by address family
	forwarding map[int]forwarding // by address family
}

// forwarding describes what happens to packets of one address family that the host forwards.
type forwarding struct {
	filtered bool // br_netfilter makes bridged packets traverse the FORWARD chains
	chains   []setup.BaseChain
	err      error // of the chains' listing
}

// place is the name of a link in a namespace.
type place struct {
	ns   *setup.Namespace
	link string
}

// holder is a link that has an address.
type holder struct {
	ns   *setup.Namespace
	end  *End // nil for the host
	link string
	mac  net.HardwareAddr
}

// neighbour is a neighbour entry.
type neighbour struct {
	ns      *setup.Namespace
	link    int // index
	address netip.Addr
}

// TakeSnapshot reads the ports and the FORWARD chains of the host, and the links, addresses and
// neighbour entries of the host and of the containers.
func TakeSnapshot(host *setup.Host, containers []*End) (*Snapshot, error) {
	s := &Snapshot{
		links:      map[place]netlink.Link{},
		holders:    map[netip.Addr][]holder{},
		addresses:  map[*End][]kernel.Address{},
		ports:      map[string]setup.FoundPort{},
		neighbours: map[neighbour]bool{},
		refused:    map[int]uint64{},
		forwarding: map[int]forwarding{},
	}
	ports, err := host.Ports()
	if err != nil {
		return nil, err
	}
	for _, p := range ports {
		s.ports[p.Name] = p
	}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if t, err := kernel.ReadNeighbourTable(host.Namespace, family); err == nil { // without IPv6, there is no table
			s.refused[family] = t.Refused
		}
		s.forwarding[family] = readForwarding(host, family)
	}
	if err := s.add(host.Namespace, nil); err != nil {
		return nil, err
	}
	for _, e := range containers {
		if err := s.add(e.Namespace, e); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// readForwarding reads the sysctl of br_netfilter and the FORWARD chains of an address family.
func readForwarding(host *setup.Host, family int) (f forwarding) {
	program := map[int]string{unix.AF_INET: "iptables", unix.AF_INET6: "ip6tables"}[family]
	f.filtered = kernel.Sysctl(host.Namespace, "bridge/bridge-nf-call-"+program) == "1"
	f.chains, f.err = host.ForwardChains(family)
	return f
}

func (s *Snapshot) add(ns *setup.Namespace, e *End) error {
	links, addresses, err := kernel.Links(ns)
	for _, l := range links {
		s.links[place{ns, l.Attrs().Name}] = l
	}
	s.addresses[e] = addresses
	for _, a := range addresses {
		s.holders[a.Addr()] = append(s.holders[a.Addr()], holder{ns, e, a.Link, a.MAC})
	}
	if err != nil {
		return err
	}
	neighbours, err := kernel.Neighbours(ns, 0, unix.AF_UNSPEC)
	for _, n := range neighbours {
		s.neighbours[neighbour{ns, n.Link, n.Address}] = true
	}
	return err
}

// Link returns a link by its name. It asks the kernel if the snapshot does not have the link.
func (s *Snapshot) Link(ns *setup.Namespace, name string) (netlink.Link, error) {
	if link := s.links[place{ns, name}]; link != nil {
		return link, nil
	}
	return kernel.Link(ns, name)
}

// Has reports whether a link in a namespace has an address.
func (s *Snapshot) Has(ns *setup.Namespace, a netip.Addr) bool {
	return slices.ContainsFunc(s.holders[a], func(h holder) bool { return h.ns.Same(ns) })
}

// HadNeighbour reports whether a namespace had a neighbour entry for an address on the link with this
// index at the time of the snapshot.
func (s *Snapshot) HadNeighbour(ns *setup.Namespace, link int, a netip.Addr) bool {
	return s.neighbours[neighbour{ns, link, a}]
}

// macOf returns the MAC of the link that has an address. If ADD gave the address to a container,
// macOf returns the MAC of the container's interface. Otherwise it returns the MAC of the host's
// link, or nil if the host does not have the address.
func (s *Snapshot) macOf(a netip.Addr) (mac net.HardwareAddr) {
	for _, h := range s.holders[a] {
		if h.end != nil && h.end.Interface == h.link && slices.ContainsFunc(h.end.Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return h.mac
		}
		if h.end == nil {
			mac = h.mac
		}
	}
	return mac
}
