package setup

import (
	"net/netip"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

// retireGateways deletes the gateway addresses of ours on a bridge in use, or on its VLAN links,
// whose subnet has no container any more, where the link has another one of the family: the range
// of the network has changed. The host would go on sending packets for the old subnet to the
// bridge, also when another node has that subnet by then. The same goes for routes to containers.
func (n *Namespace) retireGateways(bridge string) error {
	if old, outside, err := n.retirable(bridge); len(old)+len(outside) == 0 || err != nil {
		return err
	}
	lock, err := n.lock(flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	old, outside, err := n.retirable(bridge)
	if err != nil {
		return err
	}
	inUse, known, err := n.addressesBehind(bridge)
	if err != nil || !known {
		return err
	}
	var b batch
	unused := func(p netip.Prefix) bool { return !slices.ContainsFunc(inUse, p.Contains) }
	for _, gateway := range old {
		if unused(gateway.Prefix) {
			b.deleteAddress(link{index: gateway.link, name: bridge}, gateway.Prefix)
		}
	}
	for _, l := range outside {
		if err := n.deleteOnLink(&b, l, unused); err != nil {
			return err
		}
	}
	return n.send(b)
}

// retirable lists the addresses that we set on a bridge and on its VLAN links, if the link has
// more than one of the family, and those links that have a gateway outside of the subnets of
// containers, to which there are routes of ours instead.
func (n *Namespace) retirable(bridge string) (several []linkAddress, outside []link, err error) {
	type kind struct {
		link int
		is4  bool
	}
	own := map[kind][]linkAddress{}
	all, err := n.allAddresses(0)
	for _, a := range all {
		if a.own && (a.IsSingleIP() || !linkLocal6(a.Prefix)) {
			k := kind{a.link, a.Addr().Is4()}
			own[k] = append(own[k], a)
		}
	}
	for k, gateways := range own {
		within := slices.DeleteFunc(slices.Clone(gateways), func(a linkAddress) bool { return a.IsSingleIP() })
		if len(gateways) == 1 && len(within) == 1 {
			continue
		}
		l, err := n.linkAt(k.link)
		if err != nil && !absent(err) {
			return nil, nil, err
		}
		if err != nil || !n.belongs(l.name, bridge) {
			continue
		}
		several = append(several, within...)
		if len(within) < len(gateways) {
			outside = append(outside, l)
		}
	}
	return several, outside, err
}

// addressesBehind lists the addresses of the containers on a bridge. known is false where the
// kernel does not tell those of each container: one is being attached, or its link was given.
func (n *Namespace) addressesBehind(bridge string) (all []netip.Addr, known bool, err error) {
	var ports []link
	if err := n.eachPort(bridge, func(p link) bool { ports = append(ports, p); return true }); err != nil {
		return nil, false, err
	}
	for _, p := range ports {
		if !p.ours() {
			continue
		}
		if !p.up || len(p.peerNamespace) == 0 {
			return nil, false, nil
		}
		addresses, err := n.peerAddresses(p)
		if err != nil || len(addresses) == 0 {
			return nil, false, err
		}
		for _, a := range addresses {
			all = append(all, a.Addr())
		}
	}
	return all, true, nil
}
