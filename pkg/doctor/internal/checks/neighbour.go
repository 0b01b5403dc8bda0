package checks

import (
	"bytes"
	"net"
	"net/netip"
	"strconv"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
)

// checkNeighbour compares the MAC in a container's neighbour entry for the next hop with the next
// hop's real MAC.
func (p *Path) checkNeighbour(e *End, next netip.Addr) {
	station := "neighbour of " + e.Name
	link, err := p.Link(e.Namespace, e.Interface)
	var all []kernel.Neighbour
	if err == nil {
		all, err = kernel.Neighbours(e.Namespace, link.Attrs().Index, kernel.FamilyOf(next))
	}
	if err != nil {
		p.Note(station, "%v", err)
		return
	}
	mac := p.macOf(next)
	if believed := wrongMAC(all, next, mac); believed != nil {
		p.Bad(station, e.Command("ip neigh del %s dev %s", next, e.Interface), "the neighbour entry for %s has MAC %s; the MAC of %[1]s is %[3]s", next, believed, mac)
		return
	}
	p.Good(station, "neighbour entry for %s: correct (or none)", next)
}

// checkHostNeighbour compares the MAC in the host's neighbour entry for a container with the
// container's real MAC.
func (p *Path) checkHostNeighbour(e *End) {
	address, ok := e.Address(p.Is4())
	if !ok {
		return
	}
	all, err := kernel.Neighbours(p.Host.Namespace, 0, kernel.FamilyOf(p.From))
	if err != nil {
		return
	}
	a := address.Addr()
	mac := p.macOf(a)
	if believed := wrongMAC(all, a, mac); believed != nil {
		p.Bad("neighbour of the host", report.Command("ip neigh del %s dev %s", a, e.Bridge), "the host's neighbour entry for %s has MAC %s; the container's MAC is %s", a, believed, mac)
	}
}

// checkNeighbourTable checks whether the table of neighbour entries has been full since
// TakeSnapshot. The kernel refuses to add an entry to a full table, and drops packets to an address
// without an entry.
func (p *Path) checkNeighbourTable() {
	family := kernel.FamilyOf(p.From)
	t, err := kernel.ReadNeighbourTable(p.Host.Namespace, family)
	if err != nil || t.Refused == p.refused[family] {
		return
	}
	key := map[bool]string{true: "ipv4", false: "ipv6"}[p.Is4()] + "/neigh/default/gc_thresh3"
	p.Bad("neighbour table", report.SetSysctl(key, strconv.Itoa(8*t.Limit)),
		"the kernel's table of neighbour entries was full (net/%s is %d), so the kernel dropped packets; all containers and the host share this table", key, t.Limit)
}

// wrongMAC returns the MAC in the neighbour entry for address a if it differs from mac. It returns
// nil if the entry is correct, if there is no entry, or if mac is unknown.
func wrongMAC(all []kernel.Neighbour, a netip.Addr, mac net.HardwareAddr) net.HardwareAddr {
	for _, n := range all {
		if n.Address == a && len(n.MAC) > 0 && mac != nil && !bytes.Equal(n.MAC, mac) {
			return n.MAC
		}
	}
	return nil
}

// Unresolved returns an address for which container A has a failed neighbour entry: A has sent
// requests for the MAC of this address, and nobody has answered. The result is not valid if there
// is no such entry.
func (p *Path) Unresolved() (a netip.Addr) {
	link, err := p.Link(p.A.Namespace, p.A.Interface)
	if err != nil {
		return a
	}
	all, _ := kernel.Neighbours(p.A.Namespace, link.Attrs().Index, kernel.FamilyOf(p.From)) // without a list, no address is returned
	for _, n := range all {
		if n.Failed {
			a = n.Address
		}
	}
	return a
}
