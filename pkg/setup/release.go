package setup

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/forward"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// ReleaseNetwork deletes everything that the networks of these bridges have on the host: rules,
// masquerade, gateway addresses, and the bridge if we created it and nobody else uses it. A
// bridge that still has a port of ours keeps its network.
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
	if used, err := h.inUse(bridge); used || err != nil {
		return errors.Join(err, bridges.DeleteUnusedGateways(h.Namespace, bridge))
	}
	lock, err := h.Lock(flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if used, err := h.inUse(bridge); used || err != nil {
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

// inUse reports whether a bridge has a port of ours.
func (h *Host) inUse(bridge string) (used bool, err error) {
	err = bridges.EachPort(h.Namespace, bridge, func(p rtnl.Link) bool {
		used = p.Ours()
		return !used
	})
	return used, err
}

// releaseBridge deletes a bridge that we created. A bridge that existed before, or that has
// ports of others, stays, and only our addresses on it are deleted.
func (h *Host) releaseBridge(name string) error {
	br, err := rtnl.ByName(h.Namespace, name)
	if rtnl.Absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	bare, err := bridges.HasNoPort(h.Namespace, name)
	if err != nil {
		return err
	}
	if bare && bridges.MadeByUs(h.Namespace, br) {
		return bridges.DeleteBridge(h.Namespace, name)
	}
	return errors.Join(bridges.DeleteVLANLinks(h.Namespace, br), h.deleteOwnAddresses(br), ownrules.RemoveLocalnet(h.Namespace, br))
}

// deleteOwnAddresses deletes the gateway addresses that we added to a link, and the on-link
// routes to their containers.
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

// Collect deletes the ports of a network's attachments that are not in valid, on any bridge. On
// the bridge named it also deletes ports without an alias, which a killed process has left. With
// the last port of a bridge its network is deleted. Collect continues after errors.
func (h *Host) Collect(network, bridge string, valid []Attachment) error {
	gone := ownrules.Unlisted(network, valid)
	all, err := bridges.LinksUnderLock(h.Namespace)
	if err != nil {
		return err
	}
	byIndex := map[int]rtnl.Link{}
	for _, l := range all {
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
			a.Network = network // without an alias, the bridge is the only hint
		}
		if !l.Ours() || l.Port == "" || !gone(ownrules.PortOwner{Port: l.Port, Attachment: a}) {
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
	abandoned, err := ownrules.Published(h.Namespace, func(m ownrules.Mapping) bool { return gone(m.Owner) })
	errs = append(errs, err, ownrules.DeleteMappings(h.Namespace, abandoned))
	guarded, err := ownrules.GuardedPorts(h.Namespace, gone)
	errs = append(errs, err, ownrules.UnguardPorts(h.Namespace, guarded))
	return errors.Join(append(errs, h.ReleaseNetwork(released...))...)
}

// ifbsOf returns the IFBs whose ports match gone.
func ifbsOf(links []rtnl.Link, gone func(ownrules.PortOwner) bool) (ifbs []rtnl.Link) {
	for _, l := range links {
		digits, found := strings.CutPrefix(l.Name, plan.IFBPrefix)
		if a, ours := plan.ParseAttachment(l.Alias); ours && found && gone(ownrules.PortOwner{Port: plan.PortPrefix + digits, Attachment: a}) {
			ifbs = append(ifbs, l)
		}
	}
	return ifbs
}
