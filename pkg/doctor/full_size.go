package doctor

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/probe"
)

// checkFullSize sends packets as large as the container's link takes. A link on the path may drop them without an error
// (an MTU black hole).
func (p *proof) checkFullSize(e *probe.Echo) {
	link, err := kernel.Link(p.A.Namespace, p.A.Interface)
	if err != nil {
		return // CheckInterface has said so
	}
	mtu := link.Attrs().MTU
	fits := func(size int) (answered, told bool) {
		answered, err := e.Ask(size)
		return answered, errors.Is(err, unix.EMSGSIZE) // a link on the path has reported its MTU, as it should
	}
	for range 2 {
		if answered, told := fits(mtu); answered || told {
			p.Good("packets of full size", "pass, with %d bytes", mtu)
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
	for _, name := range []string{p.A.Port, p.A.Bridge} { // they accept some bytes more than their MTU
		if l, err := kernel.Link(p.Host.Namespace, name); err == nil {
			low = min(low, l.Attrs().MTU)
		}
	}
	p.Bad("packets of full size", p.A.Command("ip link set %s mtu %d", p.A.Interface, low),
		"vanish: of %d bytes and less they are answered, and %s sends up to %d", low, p.A.Interface, mtu)
}
