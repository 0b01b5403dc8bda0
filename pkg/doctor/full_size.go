package doctor

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/probe"
)

// checkFullSize checks that packets as large as the MTU of the container's link arrive. A link on
// the path may drop such packets without an error (an MTU black hole).
func (p *proof) checkFullSize(e *probe.Echo) {
	link, err := p.Link(p.A.Namespace, p.A.Interface)
	if err != nil {
		return // CheckInterface has reported this
	}
	mtu := link.Attrs().MTU
	fits := func(size int) (answered, told bool) {
		answered, err := e.Ask(size)
		return answered, errors.Is(err, unix.EMSGSIZE) // EMSGSIZE is no fault: a router has reported its MTU
	}
	for range 2 {
		if answered, told := fits(mtu); answered || told {
			p.Good("full-size packets", "packets of %d bytes arrive", mtu)
			return
		}
	}
	low, high := probe.Smallest, mtu
	for high-low > 1 {
		middle := (low + high) / 2
		if answered, _ := fits(middle); answered {
			low = middle
		} else {
			high = middle
		}
	}
	for _, name := range []string{p.A.Port, p.A.Bridge} { // these links accept packets that are a few bytes larger than their MTU
		if l, err := p.Link(p.Host.Namespace, name); err == nil {
			low = min(low, l.Attrs().MTU)
		}
	}
	p.Bad("full-size packets", p.A.Command("ip link set %s mtu %d", p.A.Interface, low),
		"packets of more than %d bytes are lost without an error, and %s sends up to %d bytes", low, p.A.Interface, mtu)
}
