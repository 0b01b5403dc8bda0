package kernel

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Neighbour is a neighbour entry of the kernel: an address and its MAC.
type Neighbour struct {
	Link    int // index
	Address netip.Addr
	MAC     net.HardwareAddr
	Failed  bool // nobody has answered the kernel's requests so far
	Fixed   bool // a program has set the entry (NUD_PERMANENT), so the kernel sends no requests
}

// Neighbours lists the neighbour entries of a family (AF_INET, AF_INET6) on the link with this
// index. If the index is 0, it lists the entries of all links.
func Neighbours(ns *setup.Namespace, index, family int) (all []Neighbour, err error) {
	entries, err := neighbours(ns, index, family)
	for _, n := range entries {
		a, _ := netip.AddrFromSlice(n.IP)
		all = append(all, Neighbour{n.LinkIndex, a.Unmap(), n.HardwareAddr, n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE) != 0, n.State&netlink.NUD_PERMANENT != 0})
	}
	return all, err
}

// DeleteNeighbour deletes the neighbour entry for an address on the link with this index.
func DeleteNeighbour(ns *setup.Namespace, index int, a netip.Addr) error {
	return ask(ns, func(h *netlink.Handle) error {
		return h.NeighDel(&netlink.Neigh{LinkIndex: index, IP: a.AsSlice()})
	})
}

// FDBEntry is an entry of a forwarding database: a MAC, and where frames for this MAC go. In the
// database of a bridge, frames go to a port. In the database of a VXLAN device, they go to another
// host.
type FDBEntry struct {
	Port, Bridge int // indexes of links; Port is the VXLAN device in its own database
	MAC          net.HardwareAddr
	Remote       netip.Addr // the other host; not valid in the database of a bridge
}

// FDB lists the entries of the forwarding databases of all bridges and VXLAN devices.
func FDB(ns *setup.Namespace) (all []FDBEntry, err error) {
	entries, err := neighbours(ns, 0, unix.AF_BRIDGE)
	for _, n := range entries {
		remote, _ := netip.AddrFromSlice(n.IP)
		all = append(all, FDBEntry{n.LinkIndex, n.MasterIndex, n.HardwareAddr, remote.Unmap()})
	}
	return all, err
}

// Floods reports whether a bridge sends frames for an unknown MAC to a port. This is the kernel's
// default, so Floods also returns true if the kernel returns an error.
func Floods(ns *setup.Namespace, port netlink.Link) bool {
	floods := true
	_ = ask(ns, func(h *netlink.Handle) error { // after an error, floods is true
		p, err := h.LinkGetProtinfo(port)
		floods = err != nil || p.Flood
		return err
	})
	return floods
}

func neighbours(ns *setup.Namespace, index, family int) (all []netlink.Neigh, err error) {
	err = ask(ns, func(h *netlink.Handle) (err error) {
		all, err = setup.Dump(func() ([]netlink.Neigh, error) { return h.NeighList(index, family) })
		return err
	})
	return all, err
}
