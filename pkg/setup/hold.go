package setup

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

// lockWait is how long a step waits for others to be done with the bridge, unless the process
// has less time (flock.Limit). The longest of them runs some twenty iptables processes.
const lockWait = 30 * time.Second

// holdNetwork makes sure that the network is complete and stays so until the
// lock is given back: time to plug in a port, which then holds the network
// itself. Where all is in place, as it mostly is, many hold it at once.
//
// The lock is on the file of the namespace, one inode of nsfs whatever path leads to
// it: there is one in each host, no folder needs to exist for it, and nothing is
// left behind.
func (n *Namespace) holdNetwork(net *Network) (*flock.Lock, error) {
	lock, err := n.lock(flock.Shared)
	if err != nil {
		return nil, err
	}
	lacks, err := n.lacks(net)
	if err == nil && len(lacks) == 0 {
		return lock, nil
	}
	lock.Unlock()
	if err != nil {
		return nil, err
	}
	if lock, err = n.lock(flock.Exclusive); err != nil {
		return nil, err
	}
	if lacks, err = n.lacks(net); err == nil { // another may have mended it meanwhile
		err = mend(lacks)
	}
	if err != nil {
		lock.Unlock()
		return nil, err
	}
	return lock, nil
}

func (n *Namespace) lock(mode flock.Mode) (*flock.Lock, error) {
	l, err := flock.AcquireFD(int(n.handle), mode, lockWait)
	if err != nil {
		return nil, fmt.Errorf("lock the host's network namespace: %w", err)
	}
	return l, nil
}

// ReleaseNetwork takes back all that the network of each bridge has on the host, unless a
// port of ours is still on the bridge: rules, masquerade, the gateway addresses,
// and the bridge itself if we made it and nobody else uses it.
func (n *Namespace) ReleaseNetwork(bridges ...string) error {
	var errs []error
	for i, bridge := range bridges {
		if bridge != "" && !slices.Contains(bridges[:i], bridge) {
			errs = append(errs, n.releaseNetwork(bridge))
		}
	}
	return errors.Join(errs...)
}

func (n *Namespace) releaseNetwork(bridge string) error {
	if used, err := n.inUse(bridge); used || err != nil {
		return errors.Join(err, n.retireGateways(bridge))
	}
	lock, err := n.lock(flock.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if used, err := n.inUse(bridge); used || err != nil {
		return err
	}
	return errors.Join(n.DeleteForward(bridge), n.deleteFromChains(bridge), n.deleteFromFirewalld(bridge), n.DeleteRules(bridge), n.releaseBridge(bridge))
}

// inUse says whether a bridge has a port of ours.
func (n *Namespace) inUse(bridge string) (used bool, err error) {
	err = n.eachPort(bridge, func(p link) bool {
		used = p.ours()
		return !used
	})
	return used, err
}

// releaseBridge takes our addresses off a bridge that stays, because it was there
// before us or somebody else has joined it, and deletes it otherwise.
func (n *Namespace) releaseBridge(name string) error {
	br, err := n.link(name)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	bare, err := n.portless(name)
	if err != nil {
		return err
	}
	if bare && n.made(br) {
		return n.DeleteBridge(name)
	}
	return errors.Join(n.deleteVLANLinks(br), n.deleteOwnAddresses(br), n.closeLocalnet(br))
}

// deleteOwnAddresses takes back the gateways of a link, and the routes to their containers.
func (n *Namespace) deleteOwnAddresses(l link) error {
	_, own, err := n.addressesOf(l)
	if err != nil {
		return err
	}
	var b batch
	for _, p := range own {
		if p == linkLocal(l.mac) {
			continue
		}
		if p.IsSingleIP() {
			if err := n.deleteOnLink(&b, l, func(netip.Prefix) bool { return true }); err != nil {
				return err
			}
		}
		b.deleteAddress(l, p)
	}
	return n.send(b)
}
