package doctor

import (
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inside looks at a container's interface, and at its address if one is given.
func (w *walk) inside(e *End, given netip.Prefix) {
	station := "interface of " + e.Name
	var link netlink.Link
	var addresses []netlink.Addr
	err := e.Namespace.Do(func() (err error) {
		if link, err = netlink.LinkByName(e.Interface); err != nil || !given.IsValid() {
			return err
		}
		addresses, err = dump(here.AddrList, link, familyOf(given.Addr()))
		return err
	})
	switch {
	case err != nil:
		w.sad(station, "remove the container and make it again", "%s is not there: %v", e.Interface, err)
		return
	case link.Attrs().Flags&net.FlagUp == 0:
		w.bad(station, e.in("ip link set %s up", e.Interface), "%s is down; routes went with it, so make the container again if this does not help", e.Interface)
	case link.Attrs().RawFlags&unix.IFF_LOWER_UP == 0:
		w.note(station, "%s has no carrier: its other end is down", e.Interface)
	default:
		w.good(station, "%s is up, MTU %d", e.Interface, link.Attrs().MTU)
	}
	if given.IsValid() {
		w.address(e, given, addresses)
		w.duplicates(e, given.Addr())
	}
}

// address compares the address that a container was given with those that it has.
func (w *walk) address(e *End, given netip.Prefix, addresses []netlink.Addr) {
	station := "address of " + e.Name
	i := slices.IndexFunc(addresses, func(a netlink.Addr) bool { return prefixOf(a.IPNet).Addr() == given.Addr() })
	off := "ipv6/conf/" + e.Interface + "/disable_ipv6"
	switch {
	case i < 0 && given.Addr().Is6() && sysctl(e.Namespace, off) == "1":
		w.sad(station, "remove the container and make it again, without whoever sets "+off, "IPv6 is switched off in the container: net/%s is 1, and took %s away", off, given)
	case i < 0:
		w.bad(station, e.in("ip addr add %s dev %s", given, e.Interface), "%s does not have %s", e.Interface, given.Addr())
	case prefixOf(addresses[i].IPNet) != given:
		w.bad(station, e.in("ip addr add %s dev %s", given, e.Interface)+" && "+e.in("ip addr del %s dev %s", prefixOf(addresses[i].IPNet), e.Interface),
			"it is %s instead of %s: neighbours are looked for in the wrong place", prefixOf(addresses[i].IPNet), given)
	case addresses[i].Flags&unix.IFA_F_DADFAILED != 0:
		w.sad(station, "give one of them another address", "somebody else on the link has %s: the kernel does not use it", given.Addr())
	case addresses[i].Flags&unix.IFA_F_TENTATIVE != 0:
		w.note(station, "%s is still looked for duplicates of, and not used until then", given.Addr())
	default:
		w.good(station, "%s", given)
	}
}

// duplicates looks for others who have a container's address. That they are there is bad
// even if our packet is answered: it may be they who do.
func (w *walk) duplicates(e *End, a netip.Addr) {
	station := "address of " + e.Name
	for _, h := range w.holders[a] {
		switch {
		case h.end == nil:
			w.sad(station, "take it off the host, or give the container another", "the host has %s too", a)
		case h.ns.Same(e.Namespace) || h.end.Bridge != e.Bridge:
			continue
		default:
			w.sad(station, "give one of them another address", "%s has %s too: answers go to whoever was heard last", h.end.Name, a)
		}
		w.Stations[len(w.Stations)-1].always = true
	}
}
