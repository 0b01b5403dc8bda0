package bridges

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/files"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

var (
	// ErrNotBridge is returned if the link that has the name of the bridge is no bridge.
	ErrNotBridge = errors.New("the link is not a bridge")
	// ErrAlternativeName is returned if the name of the bridge is only an alternative name of a link.
	ErrAlternativeName = errors.New("is only an alternative name")
	// ErrRenamed is returned if another program has renamed the bridge.
	ErrRenamed = errors.New("it was renamed")
	// ErrAddressConflict is returned if the bridge has an address that conflicts with a gateway.
	ErrAddressConflict = errors.New("the bridge has another address")
	// ErrBridgeFull is returned if the bridge has MaxPorts ports.
	ErrBridgeFull = errors.New(`the bridge has no port left (Linux allows 1023); add a second network: copy the configuration, ` +
		`give it another "name", "bridge" and range, and name the ranges of both in "masqExclude" of each`)
)

// MaxPorts is the greatest number of ports of a bridge: BR_MAX_PORTS-1 in net/bridge/br_private.h.
const MaxPorts = 1023

// EnsureBridge creates the bridge called name if it does not exist, and sets it up. mtu is in
// bytes; 0 means the kernel's default. A new bridge has a MAC address that does not depend on its
// ports, no multicast snooping, and a limit for the MAC addresses that it learns. It also has our
// mark (rtnl.MarkOwn), because the last DEL deletes only a bridge with this mark. An existing
// bridge keeps its settings.
//
// The error is ErrRenamed if another program has renamed the bridge. For other errors see
// RequireBridge.
func EnsureBridge(n *netns.Namespace, name string, mtu int) error {
	br, err := rtnl.ByName(n, name)
	if rtnl.Absent(err) {
		if err := checkRenamed(n, name); err != nil {
			return err
		}
		if err = createBridge(n, name, mtu); err == nil {
			br, err = rtnl.ByName(n, name)
		}
	}
	if err == nil {
		err = RequireBridge(name, br)
	}
	if err != nil || br.Up {
		return err
	}
	var up netns.Batch
	if br.Own {
		rtnl.MarkOwn(&up, name)
	}
	rtnl.SetUp(&up, name)
	return n.Send(up)
}

// checkRenamed returns ErrRenamed if another program has renamed the bridge that we created under
// this name. ADD must not create a second bridge in this case, because both bridges would have the
// same MAC address and the same gateway addresses.
func checkRenamed(n *netns.Namespace, name string) error {
	now, err := RenamedTo(n, name)
	if err != nil || now == "" {
		return err
	}
	return fmt.Errorf("bridge %s: %w to %s; rename it back: ip link set %[3]s down; ip link set %[3]s name %[1]s; ip link set %[1]s up", name, ErrRenamed, now)
}

// CheckBridge checks the link called name as RequireBridge does. If there is no such link, it
// returns nil.
func CheckBridge(n *netns.Namespace, name string) error {
	l, err := rtnl.ByName(n, name)
	if rtnl.Absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return RequireBridge(name, l)
}

// RequireBridge returns ErrNotBridge if the link that the kernel has found by this name is no
// bridge. It returns ErrAlternativeName if the name is only an alternative name of the link, because
// rules match only the name itself.
func RequireBridge(name string, l rtnl.Link) error {
	if l.Kind != "bridge" {
		kind := cmp.Or(l.Kind, "none") // physical links and lo have no type
		return fmt.Errorf("%s is of type %q: %w", l.Name, kind, ErrNotBridge)
	}
	if l.Name != name {
		return fmt.Errorf("bridge %s: %[1]s %w of %s; set \"bridge\" to %[3]q, or remove the alternative name: ip link property del dev %[3]s altname %[1]s", name, ErrAlternativeName, l.Name)
	}
	return nil
}

// createBridge creates a bridge and leaves it down. If another program has created a link of that
// name meanwhile, createBridge does not change that link.
func createBridge(n *netns.Namespace, name string, mtu int) error {
	var b netns.Batch
	make := b.Ensure("create bridge "+name, rtnl.NewOwnRequest(name), unix.EEXIST)
	// The bridge gets no multicast snooping, because snooping has no effect without a querier. With
	// snooping, the kernel would also restart the timers of all ports for each port that joins or
	// leaves (br_port_state_selection in net/bridge/br_stp_if.c).
	make.AddData(rtnl.LinkInfo("bridge", nl.NewRtAttr(nl.IFLA_BR_MCAST_SNOOPING, nl.Uint8Attr(0)),
		rtnl.LearnAtMost(maxLearned), rtnl.NoLinkLocalLearning()))
	make.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, bridgeMAC(n, name)))
	if mtu != 0 {
		make.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
	}
	return n.Send(b)
}

// RenamedTo looks for a bridge that we created with this name and that another program has renamed.
// It returns the present name of the bridge, or "" if there is no such bridge. RenamedTo finds the
// bridge by its MAC address.
func RenamedTo(n *netns.Namespace, name string) (string, error) {
	all, err := allLinks(n)
	if err != nil {
		return "", err
	}
	mac := bridgeMAC(n, name)
	for _, l := range all {
		if l.Kind == "bridge" && l.Own && l.Name != name && bytes.Equal(l.MAC, mac) {
			return l.Name, nil
		}
	}
	return "", nil
}

// bridgeMAC returns the MAC address for a bridge that we create. The address depends only on the
// name of the bridge, the network namespace and the boot ID of the host. So if another program
// deletes the bridge and the next ADD creates it again, the containers' neighbour entries for the
// gateway are still correct.
func bridgeMAC(n *netns.Namespace, name string) net.HardwareAddr {
	boot, err := files.Read("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return rtnl.RandomMAC() // a MAC address derived from the name alone could be the same on two hosts
	}
	return plan.DigestMAC(sha256.Sum256(fmt.Appendf(nil, "%s %d %s", boot, n.Inode, name)))
}

// DeleteBridge deletes the bridge called name if EnsureBridge created it. The caller must make sure
// that the bridge has no ports. DeleteBridge returns as soon as no process can find the bridge. The
// kernel finishes the deletion later (see rtnl.RemoveLink).
func DeleteBridge(n *netns.Namespace, name string) error {
	br, err := rtnl.ByName(n, name)
	if rtnl.Absent(err) || err == nil && !br.Own {
		return nil
	}
	if err != nil {
		return err
	}
	return rtnl.RemoveLink(n, br)
}

// EnsureGateway adds a gateway address to a bridge or VLAN link. The parameter policy selects what
// happens to addresses that conflict with the new address. The parameter keep lists the gateway
// addresses of the network, which never conflict.
func EnsureGateway(n *netns.Namespace, bridge string, gateway netip.Prefix, keep []netip.Prefix, policy plan.Conflict) error {
	br, err := rtnl.ByName(n, bridge)
	if err != nil {
		return err
	}
	present, _, err := rtnl.WithLinkLocal(n, br)
	if err != nil || HasGateway(present, gateway) {
		return err
	}
	var b netns.Batch
	for _, p := range present {
		if sameAddress6(p, gateway) { // the kernel refuses a second copy of an IPv6 address, also with another prefix length
			rtnl.DeleteAddress(&b, br, p)
		}
	}
	for policy != plan.ConflictAdd {
		other, found := FindConflict(gateway, present, keep)
		if !found {
			break
		}
		if policy == plan.ConflictError {
			return AddressConflict(bridge, gateway, other)
		}
		rtnl.DeleteAddress(&b, br, other)
		present = slices.DeleteFunc(present, func(p netip.Prefix) bool { return p == other })
	}
	rtnl.AddAddress(&b, br, gateway, false)
	if gateway.Addr().Is6() && br.Own {
		if err := n.SetSysctlIfAny("ipv6/conf/"+bridge+"/disable_ipv6", "0"); err != nil { // on hosts where IPv6 is off for new links
			return err
		}
		// The bridge needs a link-local address, because the kernel sends neighbour solicitations
		// for forwarded packets from this address (ndisc_send_ns in net/ipv6/ndisc.c). Without it,
		// other hosts could not reach a container that has not sent anything yet.
		rtnl.AddAddress(&b, br, rtnl.LinkLocal(br.MAC), false)
	}
	return n.Send(b)
}

// FindConflict returns an address in present that conflicts with a gateway address (see
// plan.Conflict). Addresses in keep do not conflict. The key forceAddress of the reference plugin
// bridge uses the same rule.
func FindConflict(gateway netip.Prefix, present, keep []netip.Prefix) (netip.Prefix, bool) {
	i := slices.IndexFunc(present, func(p netip.Prefix) bool {
		conflict := gateway.Overlaps(p) || gateway.Addr().Is4() && p.Addr().Is4()
		return conflict && !rtnl.LinkLocal6(p) && !slices.Contains(keep, p)
	})
	if i < 0 {
		return netip.Prefix{}, false
	}
	return present[i], true
}

// HasGateway reports whether the addresses of a link contain a gateway address. For IPv6, the same
// address with a shorter prefix length is sufficient, because the larger subnet contains the same
// containers.
func HasGateway(present []netip.Prefix, gateway netip.Prefix) bool {
	return slices.ContainsFunc(present, func(p netip.Prefix) bool {
		return p == gateway || sameAddress6(p, gateway) && p.Bits() < gateway.Bits()
	})
}

func sameAddress6(a, b netip.Prefix) bool { return a.Addr() == b.Addr() && a.Addr().Is6() }

// RangeConflict returns ErrAddressConflict for a bridge that already has another gateway address
// (the parameter other), which attached containers use. The message names the remedy.
func RangeConflict(bridge string, gateway, other netip.Prefix) error {
	return fmt.Errorf("add address %s to bridge %s: %w, %s, which is the gateway of attached containers; set \"gatewayConflict\" to \"add\" "+
		"to keep both addresses, or delete these containers first", gateway, bridge, ErrAddressConflict, other)
}

// AddressConflict returns ErrAddressConflict for a bridge whose address (the parameter other)
// conflicts with the new gateway address. The message names both addresses and the remedy.
func AddressConflict(bridge string, gateway, other netip.Prefix) error {
	return fmt.Errorf("add address %s to bridge %s: %w, %s; delete that address, or set \"gatewayConflict\" to \"replace\" or \"add\"", gateway, bridge, ErrAddressConflict, other)
}
