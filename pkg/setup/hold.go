package setup

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/forward"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// holdNetwork makes sure that the network is complete and stays so until the
// lock is given back: time to plug in a port, which then holds the network
// itself. Where all is in place, as it mostly is, many hold it at once.
//
// The lock is on the file of the namespace, one inode of nsfs whatever path leads to
// it: there is one in each host, no folder needs to exist for it, and nothing is
// left behind.
func (n *Host) holdNetwork(net *Network) (*flock.Lock, error) {
	lock, err := n.Lock(flock.Shared)
	if err != nil {
		return nil, err
	}
	missing, err := n.missing(net)
	if err == nil && len(missing) == 0 {
		return lock, nil
	}
	lock.Unlock()
	if err != nil {
		return nil, err
	}
	if lock, err = n.Lock(flock.Exclusive); err != nil {
		return nil, err
	}
	if missing, err = n.missing(net); err == nil { // another may have mended it meanwhile
		err = plan.RestoreAll(missing)
	}
	if err != nil {
		lock.Unlock()
		return nil, err
	}
	return lock, nil
}

// ReleaseNetwork takes back all that the network of each bridge has on the host, unless a
// port of ours is still on the bridge: rules, masquerade, the gateway addresses,
// and the bridge itself if we made it and nobody else uses it.
func (n *Host) ReleaseNetwork(bridges ...string) error {
	var errs []error
	for i, bridge := range bridges {
		if bridge != "" && !slices.Contains(bridges[:i], bridge) {
			errs = append(errs, n.releaseNetwork(bridge))
		}
	}
	return errors.Join(errs...)
}

func (n *Host) releaseNetwork(bridge string) error {
	if used, err := n.inUse(bridge); used || err != nil {
		return errors.Join(err, bridges.RetireGateways(n.Namespace, bridge))
	}
	lock, err := n.Lock(flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if used, err := n.inUse(bridge); used || err != nil {
		return err
	}
	return errors.Join(forward.Delete(n.Namespace, bridge), forward.DeleteFromChains(n.Namespace, bridge), forward.DeleteFromFirewalld(n.Namespace, bridge), ownrules.DeleteRules(n.Namespace, bridge), n.releaseBridge(bridge))
}

// inUse says whether a bridge has a port of ours.
func (n *Host) inUse(bridge string) (used bool, err error) {
	err = bridges.EachPort(n.Namespace, bridge, func(p rtnl.Link) bool {
		used = p.Ours()
		return !used
	})
	return used, err
}

// releaseBridge takes our addresses off a bridge that stays, because it was there
// before us or somebody else has joined it, and deletes it otherwise.
func (n *Host) releaseBridge(name string) error {
	br, err := rtnl.ByName(n.Namespace, name)
	if rtnl.Absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	bare, err := bridges.Portless(n.Namespace, name)
	if err != nil {
		return err
	}
	if bare && bridges.Made(n.Namespace, br) {
		return bridges.DeleteBridge(n.Namespace, name)
	}
	return errors.Join(bridges.DeleteVLANLinks(n.Namespace, br), n.deleteOwnAddresses(br), ownrules.CloseLocalnet(n.Namespace, br))
}

// deleteOwnAddresses takes back the gateways of a link, and the routes to their containers.
func (n *Host) deleteOwnAddresses(l rtnl.Link) error {
	_, own, err := rtnl.WithLinkLocal(n.Namespace, l)
	if err != nil {
		return err
	}
	var b netns.Batch
	for _, p := range own {
		if p == rtnl.LinkLocal(l.MAC) {
			continue
		}
		if p.IsSingleIP() {
			if err := bridges.DeleteOnLink(n.Namespace, &b, l, func(netip.Prefix) bool { return true }); err != nil {
				return err
			}
		}
		rtnl.DeleteAddress(&b, l, p)
	}
	return n.Send(b)
}
