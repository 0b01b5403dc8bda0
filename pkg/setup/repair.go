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

// RepairPort restores the missing parts of a port and its network on the host, for example after
// another program has flushed the ruleset. It returns the names of the restored parts. It continues
// after errors and returns all of them. It changes nothing in the container.
func (h *Host) RepairPort(p *Port) (restored []string, err error) {
	return h.repair(func() ([]plan.Difference, error) {
		missing, err := h.missing(p.Network)
		if err != nil {
			return nil, err
		}
		return append(missing, h.missingOfPort(p)...), nil
	})
}

// RepairNetwork restores the missing parts of a network as RepairPort does, but repairs no port.
func (h *Host) RepairNetwork(net *Network) (restored []string, err error) {
	return h.repair(func() ([]plan.Difference, error) { return h.missing(net) })
}

// repair restores each difference that compare returns. Then it calls compare again, and returns an
// error for each difference that still exists.
func (h *Host) repair(compare func() ([]plan.Difference, error)) (restored []string, err error) {
	lock, err := h.Lock(flock.Exclusive)
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	missing, err := compare()
	if len(missing) == 0 {
		return nil, err
	}
	for _, d := range missing {
		err = errors.Join(err, d.Restore())
	}
	clear(h.compared) // what RememberNetworks has remembered
	left, again := compare()
	err = errors.Join(err, again)
	for _, d := range missing {
		if slices.ContainsFunc(left, func(other plan.Difference) bool { return other.What == d.What }) {
			err = errors.Join(err, fmt.Errorf("%s: still missing", d.What))
		} else if again == nil {
			restored = append(restored, d.What)
		}
	}
	return restored, err
}

// missingOfPort returns the parts of a port on the host that differ from the plan.
func (h *Host) missingOfPort(p *Port) (missing []plan.Difference) {
	for _, part := range h.portParts() {
		if part.verify(p) != nil {
			missing = append(missing, plan.Difference{
				What:    part.name + " of port " + p.LinkName(),
				Restore: func() error { return part.restore(p) },
			})
		}
	}
	return missing
}

// restoreSettings adds a port to its bridge and restores its settings as a bridge port.
func (h *Host) restoreSettings(p *Port) error {
	br, err := rtnl.ByName(h.Namespace, p.Network.Bridge)
	if err != nil {
		return err
	}
	port, err := rtnl.ByName(h.Namespace, p.LinkName())
	if err != nil {
		return err
	}
	var b netns.Batch
	if err := bridges.KeepMACBeforeJoin(h.Namespace, &b, br, port.MAC); err != nil {
		return err
	}
	if port.Disabled { // the BPDU guard has disabled the port; the kernel enables the port again when the link goes down and up
		rtnl.SetDown(&b, port.Name)
	}
	join := b.Add("add "+p.LinkName()+" to bridge "+br.Name, rtnl.NewLinkRequest(p.LinkName(), 0))
	join.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(br.Index))))
	settings := b.Add("configure port "+p.LinkName(), settingsRequest(p))
	if p.ExistingLink == "" && p.MTU != AnyMTU {
		settings.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(p.MTUOn(br.MTU)))))
	}
	rtnl.SetUp(&b, p.LinkName())
	if err := errors.Join(h.Send(b), bridges.TagPort(h.Namespace, p)); err != nil || p.Down || p.ExistingLink != "" {
		return err
	}
	return h.awaitForwarding(p.LinkName())
}

// restoreGuard restores the guard of a port. If p.Guard is GuardNone, restoreGuard deletes the
// guard.
func (h *Host) restoreGuard(p *Port) error {
	if p.Guard == GuardNone {
		return ownrules.UnguardPort(h.Namespace, p.Port())
	}
	return ownrules.GuardPort(h.Namespace, p)
}
