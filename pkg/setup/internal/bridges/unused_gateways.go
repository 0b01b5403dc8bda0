package bridges

import (
	"net/netip"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// DeleteUnusedGateways deletes old gateway addresses after the range of a network has changed. Such an
// address is ours, is on the bridge or on a VLAN link, has no container in its subnet, and is not the
// only one of its family on the link. Otherwise the host would send packets for the old subnet to the
// bridge, although another node may have the subnet by then. Routes to containers are treated alike.
func DeleteUnusedGateways(n *netns.Namespace, bridge string) error {
	if old, outside, err := unusedCandidates(n, bridge); len(old)+len(outside) == 0 || err != nil {
		return err
	}
	lock, err := n.Lock(flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	old, outside, err := unusedCandidates(n, bridge)
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

// unusedCandidates returns what DeleteUnusedGateways may delete, if no container needs it. several are
// our gateway addresses on links that have more than one of the family. outside are the links with a
// gateway outside the containers' subnets: the host has routes to these subnets.
func unusedCandidates(n *netns.Namespace, bridge string) (several []rtnl.LinkAddress, outside []rtnl.Link, err error) {
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

// addressesBehind returns the addresses of the containers on a bridge. known is false if the kernel does
// not list the addresses of every container: a container is being attached, or has an existing link.
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
