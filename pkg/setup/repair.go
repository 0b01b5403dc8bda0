package setup

import (
	"errors"
	"fmt"
	"net/netip"
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
	if err := h.awaitForwarding(p.LinkName()); err != nil {
		return err
	}
	return h.Do(func() error { introduceGateways(p); return nil })
}

// discard is the UDP port of a service that ignores what it receives (RFC 863).
const discard = 9

// introduceGateways sends an empty datagram from each gateway to the container. If another program has
// created the bridge again, the bridge has a new MAC address, but the container's neighbour entries have
// the old one for up to a minute. The kernel sends a request for the container's MAC address before it
// sends the datagram. From this request, the container learns the new MAC address of the gateway
// (RFC 826; RFC 4861, section 7.2.3). Errors are ignored, because the entries expire anyway.
func introduceGateways(p *Port) {
	for _, gateway := range p.Network.Gateways {
		for _, a := range p.Addresses {
			if a.Addr().Is4() == gateway.Addr().Is4() {
				_ = sendEmpty(gateway.Addr(), a.Addr())
			}
		}
	}
}

// sendEmpty sends an empty datagram to the port discard, in the namespace of the calling thread.
func sendEmpty(from, to netip.Addr) error {
	family, source, destination := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: from.As16()}), unix.Sockaddr(&unix.SockaddrInet6{Addr: to.As16(), Port: discard})
	if to.Is4() {
		family, source, destination = unix.AF_INET, &unix.SockaddrInet4{Addr: from.As4()}, &unix.SockaddrInet4{Addr: to.As4(), Port: discard}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, source); err != nil {
		return err
	}
	return unix.Sendto(fd, nil, 0, destination)
}

// restoreGuard restores the guard of a port. If p.Guard is GuardNone, restoreGuard deletes the
// guard.
func (h *Host) restoreGuard(p *Port) error {
	if p.Guard == GuardNone {
		return ownrules.UnguardPort(h.Namespace, p.Port())
	}
	return ownrules.GuardPort(h.Namespace, p)
}
