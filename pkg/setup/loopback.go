package setup

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

const loopback = "lo"

// RaiseLoopback sets lo up, by which the kernel gives it 127.0.0.1 and ::1, and returns
// its addresses. LowerLoopback is its inverse.
func (n *Namespace) RaiseLoopback() ([]netip.Prefix, error) {
	var b batch
	b.setUp(loopback)
	if err := n.send(b); err != nil {
		return nil, err
	}
	l, err := n.link(loopback)
	if err != nil {
		return nil, err
	}
	addresses, err := n.addresses(l)
	return addresses, err
}

// LowerLoopback sets lo down.
func (n *Namespace) LowerLoopback() error {
	var b batch
	b.setFlag("set "+loopback+" down", loopback, unix.IFF_UP, 0)
	return n.send(b)
}

// VerifyLoopback says whether lo is up.
func (n *Namespace) VerifyLoopback() error {
	l, err := n.link(loopback)
	if err != nil {
		return err
	}
	return differ("interface "+loopback+" up", l.up, true)
}
