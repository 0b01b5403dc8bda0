package checks

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// CheckInterface checks a container's interface. If given is a valid address, CheckInterface also
// checks that the interface has this address. ADD gave this address to the container.
func (p *Path) CheckInterface(e *End, given netip.Prefix) {
	station := "interface of " + e.Name
	link, err := p.Link(e.Namespace, e.Interface)
	switch {
	case err != nil:
		p.Advise(station, "delete the container and create it again", "%s does not exist: %v", e.Interface, err)
		return
	case link.Attrs().Flags&net.FlagUp == 0:
		p.Bad(station, e.Command("ip link set %s up", e.Interface), "%s is down, and the kernel has removed its routes; if the command does not help, create the container again", e.Interface)
	case link.Attrs().RawFlags&unix.IFF_LOWER_UP == 0:
		p.Note(station, "%s has no carrier, because its other end is down", e.Interface)
	default:
		p.Good(station, "%s is up, MTU %d", e.Interface, link.Attrs().MTU)
	}
	if given.IsValid() {
		p.checkAddress(e, given)
		p.checkDuplicates(e, given.Addr())
	}
}
