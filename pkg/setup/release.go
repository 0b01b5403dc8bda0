package setup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/elements"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/forward"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/hostports"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/localnet"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// ReleaseNetwork deletes the networks on these bridges: the rules, the gateway addresses, and the
// bridges. It keeps a bridge that we did not create. If a bridge still has a port of ours,
// ReleaseNetwork keeps the network, and deletes nothing but the gateway addresses that no container
// uses. If a bridge that we created still has a port of another program, such as the link of a
// virtual machine, ReleaseNetwork changes nothing, because the machine uses the gateway and the rules.
func (h *Host) ReleaseNetwork(bridges ...string) error {
	var errs []error
	for i, bridge := range bridges {
		if bridge != "" && !slices.Contains(bridges[:i], bridge) {
			errs = append(errs, h.releaseNetwork(bridge))
		}
	}
	return errors.Join(errs...)
}

func (h *Host) releaseNetwork(bridge string) error {
	if ours, _, err := h.users(bridge); ours || err != nil {
		return errors.Join(err, bridges.DeleteUnusedGateways(h.Namespace, bridge))
	}
	lock, err := h.Lock(flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	ours, others, err := h.users(bridge)
	if ours || others || err != nil {
		return err
	}
	return errors.Join(
		forward.Delete(h.Namespace, bridge),
		forward.DeleteFromChains(h.Namespace, bridge),
		forward.DeleteFromFirewalld(h.Namespace, bridge),
		ownrules.DeleteRules(h.Namespace, bridge),
		h.releaseBridge(bridge),
	)
}

// users reports whether a bridge has ports of ours. If it has none, users also reports whether others
// rely on the network: whether we created the bridge, and the bridge has ports of other programs.
func (h *Host) users(bridge string) (ours, others bool, err error) {
	err = bridges.EachPort(h.Namespace, bridge, func(p rtnl.Link) bool {
		ours = p.Ours()
		others = others || !ours
		return !ours
	})
	if ours || !others || err != nil {
		return ours, false, err
	}
	br, err := rtnl.ByName(h.Namespace, bridge)
	if rtnl.Absent(err) {
		return false, false, nil
	}
	return false, br.Own, err
}

// releaseBridge deletes a bridge if we created it and it has no ports. From every other bridge, it
// removes only what we added: VLAN links, addresses, routes and settings for host ports on
// 127.0.0.1.
func (h *Host) releaseBridge(name string) error {
	br, err := rtnl.ByName(h.Namespace, name)
	if rtnl.Absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	empty, err := bridges.HasNoPort(h.Namespace, name)
	if err != nil {
		return err
	}
	if empty && br.Own {
		return bridges.DeleteBridge(h.Namespace, name)
	}
	return errors.Join(bridges.DeleteVLANLinks(h.Namespace, br), h.deleteOwnAddresses(br), localnet.Remove(h.Namespace, br))
}

// deleteOwnAddresses deletes the gateway addresses and on-link routes that we added to link l.
func (h *Host) deleteOwnAddresses(l rtnl.Link) error {
	_, own, err := rtnl.WithLinkLocal(h.Namespace, l)
	if err != nil {
		return err
	}
	var b netns.Batch
	for _, p := range own {
		if p == rtnl.LinkLocal(l.MAC) {
			continue
		}
		if p.IsSingleIP() {
			if err := bridges.DeleteOnLink(h.Namespace, &b, l, func(netip.Prefix) bool { return true }); err != nil {
				return err
			}
		}
		rtnl.DeleteAddress(&b, l, p)
	}
	return h.Send(b)
}

// Collect deletes the ports of a CNI network on every bridge. It keeps the ports of valid
// attachments. A killed process may have left a port of ours without an alias, which does not show
// its CNI network. Collect deletes such a port only if it is on the bridge that the parameter
// "bridge" names. If a bridge then has no port of ours, Collect releases its network (see
// ReleaseNetwork). Collect continues after errors and returns all of them.
func (h *Host) Collect(network, bridge string, valid []Attachment) error {
	gone := elements.Unlisted(network, valid)
	all, err := bridges.LinksUnderLock(h.Namespace)
	if err != nil {
		return err
	}
	byIndex := map[int]rtnl.Link{}
	for _, l := range all {
		if err := plan.CheckFormat(l.Alias); err != nil {
			return fmt.Errorf("link %s: %w", l.Name, err)
		}
		byIndex[l.Index] = l
	}
	released := []string{bridge}
	var before netns.Batch
	var veths []rtnl.Link
	var existing []string
	for _, l := range all {
		a, known := plan.ParseAttachment(l.Alias)
		on := byIndex[l.Master]
		if !known && on.Name == bridge {
			a.Network = network // the port has no alias, so only its bridge shows to which network the port belongs
		}
		if !l.Ours() || l.Port == "" || !gone(elements.Owner{Port: l.Port, Attachment: a}) {
			continue
		}
		released = append(released, on.Name)
		bridges.KeepMACBeforeLeave(&before, on, l)
		if l.Port == l.Name {
			veths = append(veths, l)
		} else {
			existing = append(existing, l.Port)
		}
	}
	errs := []error{h.Send(before), rtnl.DeleteLinks(h.Namespace, append(veths, ifbsOf(all, gone)...))}
	for _, name := range existing {
		_, err := h.removePort(name)
		errs = append(errs, err)
	}
	abandoned, err := hostports.Published(h.Namespace, func(m hostports.Mapping) bool { return gone(m.Owner) })
	errs = append(errs, err, hostports.Delete(h.Namespace, abandoned))
	guarded, err := ownrules.GuardedPorts(h.Namespace, gone)
	errs = append(errs, err, ownrules.UnguardPorts(h.Namespace, guarded), ownrules.LeaveFastPath(h.Namespace, h.isDeletedPort))
	return errors.Join(append(errs, h.ReleaseNetwork(released...))...)
}

// isDeletedPort reports whether a name has the form of a port's name, and no link has the name.
func (h *Host) isDeletedPort(name string) bool {
	if !plan.IsPort(name) {
		return false
	}
	_, err := rtnl.ByName(h.Namespace, name)
	return rtnl.Absent(err)
}

// ifbsOf returns the IFBs (links for bandwidth limits, see plan.IFBOf) of the ports whose owners
// the function gone selects.
func ifbsOf(links []rtnl.Link, gone func(elements.Owner) bool) (ifbs []rtnl.Link) {
	for _, l := range links {
		digits, found := strings.CutPrefix(l.Name, plan.IFBPrefix)
		if a, ours := plan.ParseAttachment(l.Alias); ours && found && gone(elements.Owner{Port: plan.PortPrefix + digits, Attachment: a}) {
			ifbs = append(ifbs, l)
		}
	}
	return ifbs
}
