package bridges

import (
	"net/netip"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// DeleteUnusedGateways deletes the gateway addresses of ours on a bridge in use, or on its VLAN links,
// whose subnet has no container any more, where the link has another one of the family: the range
// of the network has changed. The host would go on sending packets for the old subnet to the
// bridge, also when another node has that subnet by then. The same goes for routes to containers.
func DeleteUnusedGateways(n *netns.Namespace, bridge string) error {
	if old, outside, err := retirable(n, bridge); len(old)+len(outside) == 0 || err != nil {
		return err
	}
	lock, err := n.Lock(flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	old, outside, err := retirable(n, bridge)
	if err != nil {
		return err
	}
	inUse, known, err := addressesBehind(n, bridge)
	if err != nil || !known {
		return err
	}
	var b netns.Batch
	unused := func(p netip.Prefix) bool { return !slices.ContainsFunc(inUse, p.Contains) }
	for _, gateway := range old {
		if unused(gateway.Prefix) {
			rtnl.DeleteAddress(&b, rtnl.Link{Index: gateway.Link, Name: bridge}, gateway.Prefix)
		}
	}
	for _, l := range outside {
		if err := DeleteOnLink(n, &b, l, unused); err != nil {
			return err
		}
	}
	return n.Send(b)
}

// retirable lists the addresses that we set on a bridge and on its VLAN links, if the link has
// more than one of the family, and those links that have a gateway outside of the subnets of
// containers, to which there are routes of ours instead.
func retirable(n *netns.Namespace, bridge string) (several []rtnl.LinkAddress, outside []rtnl.Link, err error) {
	type kind struct {
		link int
		is4  bool
	}
	own := map[kind][]rtnl.LinkAddress{}
	all, err := rtnl.AllAddresses(n, 0)
	for _, a := range all {
		if a.Own && (a.IsSingleIP() || !rtnl.LinkLocal6(a.Prefix)) {
			k := kind{a.Link, a.Addr().Is4()}
			own[k] = append(own[k], a)
		}
	}
	for k, gateways := range own {
		within := slices.DeleteFunc(slices.Clone(gateways), func(a rtnl.LinkAddress) bool { return a.IsSingleIP() })
		if len(gateways) == 1 && len(within) == 1 {
			continue
		}
		l, err := rtnl.ByIndex(n, k.link)
		if err != nil && !rtnl.Absent(err) {
			return nil, nil, err
		}
		if err != nil {
			continue // deleted meanwhile
		}
		if ours, err := IsBridgeOrVLAN(n, l.Name, bridge); err != nil {
			return nil, nil, err
		} else if !ours {
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
func addressesBehind(n *netns.Namespace, bridge string) (all []netip.Addr, known bool, err error) {
	var ports []rtnl.Link
	if err := EachPort(n, bridge, func(p rtnl.Link) bool { ports = append(ports, p); return true }); err != nil {
		return nil, false, err
	}
	for _, p := range ports {
		if !p.Ours() {
			continue
		}
		if !p.Up || len(p.PeerNamespace) == 0 {
			return nil, false, nil
		}
		addresses, err := peerAddresses(n, p)
		if err != nil || len(addresses) == 0 {
			return nil, false, err
		}
		for _, a := range addresses {
			all = append(all, a.Addr())
		}
	}
	return all, true, nil
}
