package checks

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
)

// checkAddress checks that a container's interface has an address that ADD gave to the container.
func (p *Path) checkAddress(e *End, given netip.Prefix) {
	station := "address of " + e.Name
	all := p.addresses[e]
	i := slices.IndexFunc(all, func(a kernel.Address) bool { return a.Link == e.Interface && a.Addr() == given.Addr() })
	off := "ipv6/conf/" + e.Interface + "/disable_ipv6"
	switch {
	case i < 0 && given.Addr().Is6() && kernel.Sysctl(e.Namespace, off) == "1":
		p.Advise(station, "create the container again, without the program that sets net/"+off, "IPv6 is off in the container (net/%s is 1), so the kernel has removed %s", off, given)
	case i < 0:
		p.Bad(station, e.Command("ip addr add %s dev %s", given, e.Interface), "%s does not have %s", e.Interface, given.Addr())
	case all[i].Prefix != given:
		p.Bad(station, e.Command("ip addr add %s dev %s", given, e.Interface)+" && "+e.Command("ip addr del %s dev %s", all[i].Prefix, e.Interface),
			"the address is %s instead of %s, so the container takes the wrong addresses for neighbours", all[i].Prefix, given)
	case all[i].Flags&unix.IFA_F_DADFAILED != 0:
		p.Advise(station, "give one of the two another address", "another host on the link has %s, so the kernel does not use it", given.Addr())
	case all[i].Flags&unix.IFA_F_TENTATIVE != 0:
		p.Note(station, "%s is not in use yet: duplicate address detection is running", given.Addr())
	default:
		p.Good(station, "%s", given)
	}
}

// checkDuplicates adds a bad station if the host, or another container on the same bridge, also has
// the address a of container e. The station stays bad even if the doctor's packet is answered,
// because the other link may have sent the answer.
func (p *Path) checkDuplicates(e *End, a netip.Addr) {
	station := "address of " + e.Name
	for _, h := range p.holders[a] {
		switch {
		case h.end == nil:
			p.Advise(station, "delete the address from the host, or give the container another one", "the host has %s too, so answers go to either of the two", a).Always = true
		case h.ns.Same(e.Namespace) || h.end.Bridge != e.Bridge:
			continue
		default:
			p.Advise(station, "give one of the two another address", "%s has %s too, so answers go to either of the two", h.end.Name, a).Always = true
		}
	}
}
