package setup

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// RepairPort puts back what a port and its network have lost on the host since AttachPort
// made it, and says what that was: after somebody has flushed the rules of the host, for
// one. It goes on after errors. What is inside of the container is left alone.
func (n *Host) RepairPort(p *Port) (mended []string, err error) {
	return n.repair(func() ([]plan.Difference, error) {
		missing, err := n.missing(p.Network)
		if err != nil {
			return nil, err
		}
		return append(missing, n.missingOfPort(p)...), nil
	})
}

// RepairNetwork is RepairPort of the network alone.
func (n *Host) RepairNetwork(net *Network) (mended []string, err error) {
	return n.repair(func() ([]plan.Difference, error) { return n.missing(net) })
}

// repair mends what a look finds, and looks again: what is there now was mended.
func (n *Host) repair(look func() ([]plan.Difference, error)) (mended []string, err error) {
	lock, err := n.Lock(flock.Exclusive)
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	missing, err := look()
	if len(missing) == 0 {
		return nil, err
	}
	for _, l := range missing {
		err = errors.Join(err, l.Restore())
	}
	left, again := look()
	err = errors.Join(err, again)
	for _, l := range missing {
		if slices.ContainsFunc(left, func(other plan.Difference) bool { return other.What == l.What }) {
			err = errors.Join(err, fmt.Errorf("%s: still missing", l.What))
		} else if again == nil {
			mended = append(mended, l.What)
		}
	}
	return mended, err
}

// missingOfPort lists what is to be done for a port to be as AttachPort left it.
func (n *Host) missingOfPort(p *Port) (missing []plan.Difference) {
	for _, part := range []struct {
		verify func(*Port) error
		what   string
		mend   func(*Port) error
	}{
		{n.verifyPort, "settings of port ", n.resetPort},
		{in(n, ownrules.VerifyHostPorts), "host ports of port ", in(n, ownrules.Publish)},
		{in(n, ownrules.VerifyGuard), "guard of port ", n.reguardPort},
		{in(n, bridges.VerifyBandwidth), "bandwidth of port ", in(n, bridges.LimitPort)},
	} {
		if part.verify(p) != nil {
			missing = append(missing, plan.Difference{What: part.what + p.LinkName(), Restore: func() error { return part.mend(p) }})
		}
	}
	return missing
}

// resetPort puts a port on its bridge, with its settings.
func (n *Host) resetPort(p *Port) error {
	br, err := rtnl.ByName(n.Namespace, p.Network.Bridge)
	if err == nil {
		err = bridges.KeepMACBefore(n.Namespace, br)
	}
	if err != nil {
		return err
	}
	var b netns.Batch
	join := b.Add("plug "+p.LinkName()+" into bridge "+br.Name, rtnl.NewLinkRequest(p.LinkName(), 0))
	join.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(br.Index))))
	settings := b.Add("configure port "+p.LinkName(), settingsRequest(p))
	if p.Given == "" && p.MTU != AnyMTU {
		settings.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(p.MTUOn(br.MTU)))))
	}
	rtnl.SetUp(&b, p.LinkName())
	if err := errors.Join(n.Send(b), bridges.TagPort(n.Namespace, p)); err != nil || p.Down || p.Given != "" {
		return err
	}
	return n.awaitForwarding(p.LinkName())
}

// reguardPort makes the guard of a port what it should be, which may be none.
func (n *Host) reguardPort(p *Port) error {
	if p.Guard == GuardNone {
		return ownrules.UnguardPort(n.Namespace, p.Port())
	}
	return ownrules.GuardPort(n.Namespace, p)
}

// in is a function of the rooms below that works in the host's namespace.
func in(n *Host, f func(*Namespace, *Port) error) func(*Port) error {
	return func(p *Port) error { return f(n.Namespace, p) }
}
