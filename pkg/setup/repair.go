package setup

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

// RepairPort puts back what a port and its network have lost on the host since AttachPort
// made it, and says what that was: after somebody has flushed the rules of the host, for
// one. It goes on after errors. What is inside of the container is left alone.
func (n *Namespace) RepairPort(p *Port) (mended []string, err error) {
	return n.repair(func() ([]lack, error) {
		lacks, err := n.lacks(p.Network)
		if err != nil {
			return nil, err
		}
		return append(lacks, n.portLacks(p)...), nil
	})
}

// RepairNetwork is RepairPort of the network alone.
func (n *Namespace) RepairNetwork(net *Network) (mended []string, err error) {
	return n.repair(func() ([]lack, error) { return n.lacks(net) })
}

// repair mends what a look finds, and looks again: what is there now was mended.
func (n *Namespace) repair(look func() ([]lack, error)) (mended []string, err error) {
	lock, err := n.lock(flock.Exclusive)
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	lacks, err := look()
	if len(lacks) == 0 {
		return nil, err
	}
	for _, l := range lacks {
		err = errors.Join(err, l.mend())
	}
	left, again := look()
	err = errors.Join(err, again)
	for _, l := range lacks {
		if slices.ContainsFunc(left, func(other lack) bool { return other.what == l.what }) {
			err = errors.Join(err, fmt.Errorf("%s: still missing", l.what))
		} else if again == nil {
			mended = append(mended, l.what)
		}
	}
	return mended, err
}

// portLacks lists what is to be done for a port to be as AttachPort left it.
func (n *Namespace) portLacks(p *Port) (lacks []lack) {
	for _, part := range []struct {
		verify func(*Port) error
		what   string
		mend   func(*Port) error
	}{
		{n.verifyPort, "settings of port ", n.resetPort},
		{n.verifyHostPorts, "host ports of port ", n.publish},
		{n.verifyGuard, "guard of port ", n.reguardPort},
		{n.verifyBandwidth, "bandwidth of port ", n.limitPort},
	} {
		if part.verify(p) != nil {
			lacks = append(lacks, lack{what: part.what + p.name(), mend: func() error { return part.mend(p) }})
		}
	}
	return lacks
}

// resetPort puts a port on its bridge, with its settings.
func (n *Namespace) resetPort(p *Port) error {
	br, err := n.link(p.Network.Bridge)
	if err == nil {
		err = n.keepMACBefore(br)
	}
	if err != nil {
		return err
	}
	var b batch
	join := b.add("plug "+p.name()+" into bridge "+br.name, newLinkRequest(p.name(), 0))
	join.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(br.index))))
	settings := b.add("configure port "+p.name(), p.settingsRequest())
	if p.Given == "" && p.MTU != AnyMTU {
		settings.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(p.mtu(br.mtu)))))
	}
	b.setUp(p.name())
	if err := errors.Join(n.send(b), n.tagPort(p)); err != nil || p.Down || p.Given != "" {
		return err
	}
	return n.awaitForwarding(p.name())
}

// reguardPort makes the guard of a port what it should be, which may be none.
func (n *Namespace) reguardPort(p *Port) error {
	if p.Guard == GuardNone {
		return n.unguardPort(p.Port())
	}
	return n.guardPort(p)
}
