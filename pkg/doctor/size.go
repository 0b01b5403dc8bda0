package doctor

import (
	"errors"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// fullSize sends a packet as large as the container's link takes, which a link on the way
// may swallow without a word.
func (w *walk) fullSize(p *probe) {
	var link netlink.Link
	if err := w.a.Namespace.Do(func() (err error) { link, err = netlink.LinkByName(w.a.Interface); return err }); err != nil {
		return
	}
	mtu := link.Attrs().MTU
	fits := func(size int) (bool, bool) {
		answered, err := p.ask(size)
		if errors.Is(err, unix.EMSGSIZE) { // somebody on the way has said so, as he should
			return false, true
		}
		return answered, false
	}
	answered, told := fits(mtu)
	if !answered && !told {
		answered, told = fits(mtu)
	}
	if answered || told {
		w.good("packets of full size", "pass, with %d bytes", mtu)
		return
	}
	low, high := smallest, mtu
	for high-low > 1 {
		middle := (low + high) / 2
		if ok, _ := fits(middle); ok {
			low = middle
		} else {
			high = middle
		}
	}
	for _, link := range []string{w.a.Port, w.a.Bridge} { // which let through some more than their MTU
		_ = w.Host.Do(func() error { // without it there is nothing to compare
			l, err := netlink.LinkByName(link)
			if err == nil {
				low = min(low, l.Attrs().MTU)
			}
			return err
		})
	}
	w.bad("packets of full size", w.a.in("ip link set %s mtu %d", w.a.Interface, low),
		"vanish: of %d bytes and less they are answered, and %s sends up to %d", low, w.a.Interface, mtu)
}
