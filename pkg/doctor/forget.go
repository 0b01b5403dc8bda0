package doctor

import (
	"net/netip"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// forgetNeighbours deletes the neighbour entries that the packets have added: those of the path's
// containers, and those of the host for these containers. All network namespaces share one table of
// limited size (gc_thresh3). The packets from hundreds of containers would fill it, and the kernel
// does not replace entries of the last five seconds (neigh_forced_gc in net/core/neighbour.c). If
// other packets need a deleted entry, the kernel adds it again.
func (p *proof) forgetNeighbours() {
	for _, e := range p.Containers() {
		if link, err := p.Link(e.Namespace, e.Interface); err == nil {
			all, _ := kernel.Neighbours(e.Namespace, link.Attrs().Index, kernel.FamilyOf(p.From)) // what is not listed stays until it expires
			for _, n := range all {
				p.forget(e.Namespace, n.Link, n.Address)
			}
		}
		address, ok := e.Address(p.Is4())
		if bridge, err := p.Link(p.Host.Namespace, e.Bridge); ok && err == nil {
			p.forget(p.Host.Namespace, bridge.Attrs().Index, address.Addr())
		}
	}
}

// forget deletes a neighbour entry that did not exist before the first path.
func (p *proof) forget(ns *setup.Namespace, link int, a netip.Addr) {
	if !p.HadNeighbour(ns, link, a) {
		_ = kernel.DeleteNeighbour(ns, link, a) // if there is an entry nevertheless, it stays until it expires
	}
}
