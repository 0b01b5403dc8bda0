package doctor

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// survey is who has which address on the host and in its containers, and what all walks
// ask for besides.
type survey struct {
	holders map[netip.Addr][]holder
	ports   map[string]setup.FoundPort // by name
}

// holder is a link that has an address.
type holder struct {
	ns     *setup.Namespace
	end    *End // nil is the host
	link   string
	prefix netip.Prefix
	mac    net.HardwareAddr
}

// look asks once for the walks of a doctor.
func (d *Doctor) look() (*survey, error) {
	if d.known != nil {
		return d.known, nil
	}
	s := &survey{map[netip.Addr][]holder{}, map[string]setup.FoundPort{}}
	ports, err := d.Host.Ports()
	if err != nil {
		return nil, err
	}
	for _, p := range ports {
		s.ports[p.Name] = p
	}
	if err := s.add(d.Host.Namespace, nil); err != nil {
		return nil, err
	}
	for _, e := range d.Ends {
		if err := s.add(e.Namespace, e); err != nil {
			return nil, err
		}
	}
	d.known = s
	return s, nil
}

// add asks one namespace.
func (s *survey) add(ns *setup.Namespace, e *End) error {
	return ns.Do(func() error {
		addresses, err := dump(here.AddrList, nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		links, err := dump(func(struct{}, int) ([]netlink.Link, error) { return here.LinkList() }, struct{}{}, 0)
		for _, a := range addresses {
			i := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Index == a.LinkIndex })
			if i >= 0 {
				p := prefixOf(a.IPNet)
				s.holders[p.Addr()] = append(s.holders[p.Addr()], holder{ns, e, links[i].Attrs().Name, p, links[i].Attrs().HardwareAddr})
			}
		}
		return err
	})
}

// has says whether a namespace has an address, on whichever link.
func (s *survey) has(ns *setup.Namespace, a netip.Addr) bool {
	return slices.ContainsFunc(s.holders[a], func(h holder) bool { return h.ns.Same(ns) })
}

// here asks the namespace that the calling thread is in.
var here netlink.Handle

// dump calls a listing again for as long as the kernel says that it changed while it was
// read (NLM_F_DUMP_INTR).
func dump[Of, T any](list func(Of, int) ([]T, error), of Of, family int) ([]T, error) {
	for {
		all, err := list(of, family)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}
