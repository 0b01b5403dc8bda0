package setup

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/forward"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/localnet"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// DefaultBridge is the name of the bridge for a configuration without the key "bridge". The
// reference plugin bridge has the same default.
const DefaultBridge = "cni0"

// Missing returns the names of the objects and settings of a network that are missing on the host. It
// changes nothing.
func (h *Host) Missing(net *Network) (what []string, err error) {
	missing, err := h.missing(net)
	for _, d := range missing {
		what = append(what, d.What)
	}
	return what, err
}

// CheckNetwork returns an error if it finds a reason why AttachPort would fail on this network. The
// error is one of ErrNotBridge, ErrNoVLANs, ErrTaken, ErrAddressConflict, ErrNoIPTables,
// ErrNoFirewalld, ErrStrictForwardPorts, ErrNoChain, ErrBridgeFull and ErrNoFlowtables, or
// unix.EROFS if a sysctl is read-only. CheckNetwork changes nothing.
func (h *Host) CheckNetwork(net *Network) error {
	missing, err := h.missing(net)
	if err != nil {
		return err
	}
	for _, d := range missing {
		if d.Sysctl != "" && h.ReadOnlySysctl(d.Sysctl) {
			return fmt.Errorf("%s: missing: %w; let the program that mounts /proc/sys set the sysctl, or mount /proc/sys writable", d.What, unix.EROFS)
		}
	}
	ports := map[int]bool{}
	if err := bridges.EachPort(h.Namespace, net.Bridge, func(p rtnl.Link) bool { ports[p.Index] = true; return true }); err != nil {
		return err
	}
	if len(ports) >= bridges.MaxPorts {
		return ErrBridgeFull
	}
	return nil
}

// lockComplete restores the missing parts of the network and returns a lock. While the caller holds
// the lock, no other process releases the network (see ReleaseNetwork). The caller may unlock as
// soon as its port is on the bridge, because ReleaseNetwork keeps a network with a port. If nothing
// is missing, which is the usual case, the lock is shared, so many processes can hold it at the
// same time.
//
// The locked file is the host's network namespace itself (as in /proc/PID/ns/net). All paths of this
// file lead to the same inode, so all processes lock the same file. The lock creates no file.
func (h *Host) lockComplete(net *Network) (*flock.Lock, error) {
	lock, err := h.Lock(flock.Shared)
	if err != nil {
		return nil, notLocked{err}
	}
	missing, err := h.missing(net)
	if err == nil && len(missing) == 0 {
		return lock, nil
	}
	lock.Unlock()
	if err != nil {
		return nil, err
	}
	if lock, err = h.Lock(flock.Exclusive); err != nil {
		return nil, notLocked{err}
	}
	if missing, err = h.missing(net); err == nil { // another process may have restored the network meanwhile
		err = plan.RestoreAll(missing)
	}
	if err != nil {
		lock.Unlock()
		return nil, err
	}
	return lock, nil
}

// notLocked is the error of lockComplete if it did not get the lock. It has changed nothing then.
type notLocked struct{ error }

// Unwrap returns the error of the lock.
func (e notLocked) Unwrap() error { return e.error }

// missing returns the objects and settings of the network that the host lacks, in the order in
// which they must be restored. It changes nothing. ADD and repair restore them, CHECK reports them.
func (h *Host) missing(net *Network) (missing []plan.Difference, err error) {
	if h.compared == nil {
		return h.compare(net)
	}
	key := fmt.Sprintf("%+v", *net)
	missing, known := h.compared[key]
	if !known {
		if missing, err = h.compare(net); err == nil {
			h.compared[key] = missing
		}
	}
	return slices.Clone(missing), err // a clone, because callers append to the list
}

// compare does the work of missing. It never returns a remembered result (see RememberNetworks).
func (h *Host) compare(net *Network) (missing []plan.Difference, err error) {
	links, err := h.linksOf(net)
	if err != nil {
		return nil, err
	}
	for _, compare := range []func() ([]plan.Difference, error){
		func() ([]plan.Difference, error) { return h.missingBridge(net, links) },
		func() ([]plan.Difference, error) { return bridges.MissingAcceptRA(h.Namespace, net, links), nil },
		func() ([]plan.Difference, error) {
			return bridges.MissingForwarding(h.Namespace, net, links[len(links)-1])
		},
		func() ([]plan.Difference, error) { return h.missingFilters(net) },
		func() ([]plan.Difference, error) { return ownrules.MissingRules(h.Namespace, net, h.Known) },
		func() ([]plan.Difference, error) { return localnet.Missing(h.Namespace, net, links) },
	} {
		found, err := compare()
		if err != nil {
			return nil, err
		}
		missing = append(missing, found...)
	}
	return missing, nil
}

// linksOf returns the links that Network.Links names, in the same order. For a link that does not
// exist it returns a zero Link.
func (h *Host) linksOf(net *Network) (links []rtnl.Link, err error) {
	for _, name := range net.Links() {
		l, err := rtnl.ByName(h.Namespace, name)
		if err != nil && !rtnl.Absent(err) {
			return nil, err
		}
		links = append(links, l)
	}
	return links, nil
}

// missingBridge returns the missing settings, VLANs, gateway addresses and on-link routes of the
// bridge. The parameter links is the result of linksOf: the first link is the bridge, and the last
// link has the gateway addresses.
func (h *Host) missingBridge(net *Network, links []rtnl.Link) (missing []plan.Difference, err error) {
	br, routed := links[0], links[len(links)-1]
	ensure := func() error { return bridges.EnsureBridge(h.Namespace, net.Bridge, net.MTU) }
	switch {
	case br.Index == 0:
		missing = append(missing, plan.Difference{What: "bridge " + net.Bridge, Restore: ensure})
	case bridges.RequireBridge(net.Bridge, br) != nil:
		return nil, bridges.RequireBridge(net.Bridge, br)
	case !br.Up:
		missing = append(missing, plan.Difference{What: "state up of bridge " + net.Bridge, Restore: ensure})
	}
	if bridges.HasNoMAC(br) {
		missing = append(missing, plan.Difference{What: "MAC address of bridge " + net.Bridge, Restore: func() error {
			var b netns.Batch
			bridges.AssignMAC(&b, br, rtnl.RandomMAC())
			return h.Send(b)
		}})
	}
	if net.Promiscuous && !br.Promiscuous {
		missing = append(missing, plan.Difference{What: "promiscuous mode of bridge " + net.Bridge, Restore: func() error { return rtnl.SetPromiscuous(h.Namespace, net.Bridge) }})
	}
	missing = append(missing, bridges.MissingLearning(h.Namespace, br)...)
	vlan, err := bridges.MissingVLANs(h.Namespace, net, br, routed)
	if err != nil {
		return nil, err
	}
	missing = append(missing, vlan...)
	gateways, err := h.missingGateways(net, routed)
	if err != nil {
		return nil, err
	}
	routes, err := bridges.MissingOnLink(h.Namespace, net, routed)
	return slices.Concat(missing, gateways, routes), err
}

// missingGateways returns the gateway addresses of the network that are missing on link l, which is
// the bridge or a VLAN link on the bridge. If a gateway address cannot be added, missingGateways
// returns an error, so that ADD fails before it changes anything.
func (h *Host) missingGateways(net *Network, l rtnl.Link) (missing []plan.Difference, err error) {
	if len(net.Gateways) == 0 {
		return nil, nil
	}
	name := net.RoutedBy()
	var present, own []netip.Prefix
	if l.Index != 0 {
		if present, own, err = rtnl.WithLinkLocal(h.Namespace, l); err != nil {
			return nil, err
		}
	}
	for _, g := range net.Gateways {
		if bridges.HasGateway(present, g) {
			continue
		}
		policy := net.Conflict
		if other, found := bridges.FindConflict(g, present, net.Gateways); found && policy == ConflictError {
			// The bridge has an address that conflicts with the gateway address. If we added this
			// conflicting address, and nobody uses the network, then a killed process has left the
			// conflicting address. Only in this case, the gateway address replaces it.
			ours, others, err := h.users(net.Bridge)
			if err != nil {
				return nil, err
			}
			if ours && slices.Contains(own, other) {
				return nil, bridges.RangeConflict(name, g, other)
			}
			if ours || others || !slices.Contains(own, other) {
				return nil, bridges.AddressConflict(name, g, other)
			}
			policy = ConflictReplace
		}
		missing = append(missing, plan.Difference{
			What: fmt.Sprintf("address %s of bridge %s", g, name), Kind: GatewayAddress, Address: g.Addr(),
			Restore: func() error { return bridges.EnsureGateway(h.Namespace, name, g, net.Gateways, policy) },
		})
	}
	return missing, nil
}

// missingFilters returns the missing rules and settings that make the chains of other programs
// accept the network's packets (see Network.Forward and Network.ForwardChains).
func (h *Host) missingFilters(net *Network) (missing []plan.Difference, err error) {
	firewalld := func(net *Network) ([]plan.Difference, error) { return forward.MissingFirewalld(h.Namespace, net) }
	chains := func(net *Network) ([]plan.Difference, error) { return forward.MissingChains(h.Namespace, net) }
	var compare []func(*Network) ([]plan.Difference, error)
	switch net.Forward {
	case ForwardAuto:
		compare = append(compare, h.missingIPTables, firewalld)
	case ForwardIPTables:
		compare = append(compare, h.missingIPTables)
	case ForwardFirewalld:
		compare = append(compare, firewalld)
	case ForwardSysctl:
		compare = append(compare, h.missingSysctls)
	}
	for _, filter := range append(compare, chains) {
		found, err := filter(net)
		if err != nil {
			return nil, err
		}
		missing = append(missing, found...)
	}
	return missing, nil
}

func (h *Host) missingIPTables(net *Network) (missing []plan.Difference, err error) {
	for _, name := range net.Links() {
		found, err := forward.MissingIPTables(h.Namespace, name, net.Families(), net.Forward == ForwardIPTables)
		if err != nil {
			return nil, err
		}
		missing = append(missing, found...)
	}
	return missing, nil
}

func (h *Host) missingSysctls(net *Network) (missing []plan.Difference, err error) {
	for family, key := range map[int]string{unix.AF_INET: netns.SysctlBridge4, unix.AF_INET6: netns.SysctlBridge6} {
		value, err := h.Sysctl(key)
		if errors.Is(err, os.ErrNotExist) {
			continue // without br_netfilter, iptables does not see packets between two ports of the bridge
		}
		if err != nil {
			return nil, fmt.Errorf("read sysctl net/%s: %w", key, err)
		}
		if value != "0" && net.Has(family) {
			missing = append(missing, plan.SysctlDifference(key, "0", func() error { return h.SetSysctl(key, "0") }))
		}
	}
	return missing, nil
}
