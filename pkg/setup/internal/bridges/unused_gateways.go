package bridges

import (
	"net/netip"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// DeleteUnusedGateways deletes the old gateway addresses of a network whose address range was
// changed. With an old address, the host would send packets for the old subnet to the bridge,
// although another node may have this subnet now. An address is deleted if all of these conditions
// are true:
//   - we added the address to the bridge or to a VLAN link on the bridge;
//   - the link has other gateway addresses of this family;
//   - no container has an address in the subnet;
//   - if we created the bridge: it has no port of another program, such as the link of a virtual
//     machine. The addresses behind such a port are unknown.
//
// DeleteUnusedGateways also deletes our on-link routes to subnets in which no container has an
// address.
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
	br, err := rtnl.ByName(n, bridge)
	if rtnl.Absent(err) {
		return nil // the bridge was deleted meanwhile
	}
	if err != nil {
		return err
	}
	inUse, known, err := containerAddresses(n, br)
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

// unusedCandidates returns the objects that DeleteUnusedGateways deletes if no container uses them.
// The result old has our gateway addresses on links that have several addresses of one family. The
// result outside has the links with a gateway outside the containers' subnets. Such a link has
// on-link routes, which may be unused.
func unusedCandidates(n *netns.Namespace, bridge string) (old []rtnl.LinkAddress, outside []rtnl.Link, err error) {
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
			continue // the link was deleted meanwhile
		}
		if ours, err := IsBridgeOrVLAN(n, l.Name, bridge); err != nil {
			return nil, nil, err
		} else if !ours {
			continue
		}
		old = append(old, within...)
		if len(within) < len(gateways) {
			outside = append(outside, l)
		}
	}
	return old, outside, err
}

// containerAddresses returns the addresses of the containers on a bridge. The result known is false
// if the addresses of a container cannot be listed, because the container is being attached or its
// port is a Port.ExistingLink. It is also false if a bridge that we created has a port of another
// program.
func containerAddresses(n *netns.Namespace, br rtnl.Link) (all []netip.Addr, known bool, err error) {
	var ports []rtnl.Link
	if err := EachPort(n, br.Name, func(p rtnl.Link) bool { ports = append(ports, p); return true }); err != nil {
		return nil, false, err
	}
	for _, p := range ports {
		if !p.Ours() && !br.Own {
			continue
		}
		if !p.Ours() || !p.Up || len(p.PeerNamespace) == 0 {
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
