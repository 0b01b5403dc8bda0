package setup

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/forward"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// DefaultBridge is the bridge of a network that names none: that of the reference
// plugin, so that configurations carry over.
const DefaultBridge = "cni0"

// Missing lists what the network needs and the namespace lacks, without changing
// anything.
func (n *Host) Missing(net *Network) (what []string, err error) {
	missing, err := n.missing(net)
	for _, l := range missing {
		what = append(what, l.What)
	}
	return what, err
}

// CheckNetwork says whether a port could be attached to the network, as far as can be
// told without trying: ErrNotBridge, ErrNoVLANs, ErrTaken, ErrAddressConflict,
// ErrNoIPTables, ErrNoFirewalld, ErrStrictForwardPorts, ErrNoChain, ErrBridgeFull, or
// unix.EROFS of a sysctl. It changes nothing.
func (n *Host) CheckNetwork(net *Network) error {
	missing, err := n.missing(net)
	if err != nil {
		return err
	}
	for _, l := range missing {
		if key, is := sysctl(l); is && n.Fixed(key) {
			return fmt.Errorf("%s: missing: %w; have whoever mounts /proc/sys set it, or mount it writable", l.What, unix.EROFS)
		}
	}
	ports := map[int]bool{}
	if err := bridges.EachPort(n.Namespace, net.Bridge, func(p rtnl.Link) bool { ports[p.Index] = true; return true }); err != nil {
		return err
	}
	if len(ports) >= bridges.MaxPorts {
		return ErrBridgeFull
	}
	return nil
}

// sysctl is the key that is to be set.
func sysctl(l plan.Difference) (key string, is bool) {
	if key, is = strings.CutPrefix(l.What, netns.SysctlPrefix); is {
		key, _, _ = strings.Cut(key, "=")
	}
	return key, is
}

// missing compares the namespace with the network, without changing anything. ADD
// mends what it finds, CHECK reports it. What it finds comes in an order in
// which it can be mended.
func (n *Host) missing(net *Network) (missing []plan.Difference, err error) {
	links, err := n.linksOf(net)
	if err != nil {
		return nil, err
	}
	for _, look := range []func() ([]plan.Difference, error){
		func() ([]plan.Difference, error) { return n.missingBridge(net, links) },
		func() ([]plan.Difference, error) { return bridges.MissingNoRA(n.Namespace, net, links), nil },
		func() ([]plan.Difference, error) {
			return bridges.MissingForwarding(n.Namespace, net, links[len(links)-1])
		},
		func() ([]plan.Difference, error) { return n.missingFilters(net) },
		func() ([]plan.Difference, error) { return ownrules.MissingRules(n.Namespace, net) },
		func() ([]plan.Difference, error) { return ownrules.MissingLocalnet(n.Namespace, net, links) },
	} {
		found, err := look()
		if err != nil {
			return nil, err
		}
		missing = append(missing, found...)
	}
	return missing, nil
}

// linksOf reads the links of net.links, each the zero link where there is none.
func (n *Host) linksOf(net *Network) (links []rtnl.Link, err error) {
	for _, name := range net.Links() {
		l, err := rtnl.ByName(n.Namespace, name)
		if err != nil && !rtnl.Absent(err) {
			return nil, err
		}
		links = append(links, l)
	}
	return links, nil
}

// missingBridge looks for the bridge, the first of the links, for what it needs for VLANs, and
// for the addresses of the last, by which the network is routed.
func (n *Host) missingBridge(net *Network, links []rtnl.Link) (missing []plan.Difference, err error) {
	br, routed := links[0], links[len(links)-1]
	ensure := func() error { return bridges.EnsureBridge(n.Namespace, net.Bridge, net.MTU) }
	switch {
	case br.Index == 0:
		missing = append(missing, plan.Difference{What: "bridge " + net.Bridge, Restore: ensure})
	case bridges.MustBridge(br) != nil:
		return nil, bridges.MustBridge(br)
	case !br.Up:
		missing = append(missing, plan.Difference{What: "state up of bridge " + net.Bridge, Restore: ensure})
	}
	if bridges.LostMAC(br) {
		missing = append(missing, plan.Difference{What: "MAC address of bridge " + net.Bridge, Restore: func() error {
			var b netns.Batch
			bridges.AssignMAC(&b, br, rtnl.RandomMAC())
			return n.Send(b)
		}})
	}
	if net.Promiscuous && !br.Promiscuous {
		missing = append(missing, plan.Difference{What: "promiscuous mode of bridge " + net.Bridge, Restore: func() error { return rtnl.SetPromiscuous(n.Namespace, net.Bridge) }})
	}
	vlan, err := bridges.MissingVLANs(n.Namespace, net, br, routed)
	if err != nil {
		return nil, err
	}
	missing = append(missing, vlan...)
	gateways, err := n.missingGateways(net, routed)
	if err != nil {
		return nil, err
	}
	routes, err := bridges.MissingOnLink(n.Namespace, net, routed)
	return slices.Concat(missing, gateways, routes), err
}

// missingGateways compares the network's gateways with the addresses of the link that it is
// routed by, the bridge l or a VLAN link, and refuses one that cannot be set before
// anything is.
func (n *Host) missingGateways(net *Network, l rtnl.Link) (missing []plan.Difference, err error) {
	if len(net.Gateways) == 0 {
		return nil, nil
	}
	name := net.RoutedBy()
	var present, own []netip.Prefix
	if l.Index != 0 {
		if present, own, err = rtnl.WithLinkLocal(n.Namespace, l); err != nil {
			return nil, err
		}
	}
	for _, g := range net.Gateways {
		if bridges.HasGateway(present, g) {
			continue
		}
		policy := net.Conflict
		if other, found := bridges.FindConflict(g, present, net.Gateways); found && policy == ConflictError {
			// One of ours that no container needs is what a killed process has left.
			used, err := n.inUse(net.Bridge)
			if err != nil {
				return nil, err
			}
			if used && slices.Contains(own, other) {
				return nil, bridges.RangeConflict(name, g, other)
			}
			if used || !slices.Contains(own, other) {
				return nil, bridges.AddressConflict(name, g, other)
			}
			policy = ConflictReplace
		}
		missing = append(missing, plan.Difference{
			What:    fmt.Sprintf("address %s of bridge %s", g, name),
			Restore: func() error { return bridges.EnsureGateway(n.Namespace, name, g, net.Gateways, policy) },
		})
	}
	return missing, nil
}

// missingFilters looks for what gets packets past chains that deny.
func (n *Host) missingFilters(net *Network) (missing []plan.Difference, err error) {
	firewalld := func(net *Network) ([]plan.Difference, error) { return forward.MissingFirewalld(n.Namespace, net) }
	chains := func(net *Network) ([]plan.Difference, error) { return forward.MissingChains(n.Namespace, net) }
	var looks []func(*Network) ([]plan.Difference, error)
	switch net.Forward {
	case ForwardAuto:
		looks = append(looks, n.missingIPTables, firewalld)
	case ForwardIPTables:
		looks = append(looks, n.missingIPTables)
	case ForwardFirewalld:
		looks = append(looks, firewalld)
	case ForwardSysctl:
		looks = append(looks, n.missingSysctls)
	}
	for _, look := range append(looks, chains) {
		found, err := look(net)
		if err != nil {
			return nil, err
		}
		missing = append(missing, found...)
	}
	return missing, nil
}

func (n *Host) missingIPTables(net *Network) (missing []plan.Difference, err error) {
	for _, name := range net.Links() {
		found, err := forward.MissingIPTables(n.Namespace, name, net.Families(), net.Forward == ForwardIPTables)
		if err != nil {
			return nil, err
		}
		missing = append(missing, found...)
	}
	return missing, nil
}

func (n *Host) missingSysctls(net *Network) (missing []plan.Difference, err error) {
	for family, key := range map[int]string{unix.AF_INET: netns.SysctlBridge4, unix.AF_INET6: netns.SysctlBridge6} {
		value, err := n.Sysctl(key)
		if errors.Is(err, os.ErrNotExist) {
			continue // no br_netfilter: iptables sees no bridged packet
		}
		if err != nil {
			return nil, fmt.Errorf("read sysctl net/%s: %w", key, err)
		}
		if value != "0" && net.Has(family) {
			missing = append(missing, plan.Difference{What: netns.SysctlPrefix + key + "=0", Restore: func() error { return n.SetSysctl(key, "0") }})
		}
	}
	return missing, nil
}
