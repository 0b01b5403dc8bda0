package bridges

import (
	"bytes"
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
	// ErrNotBridge says that the bridge's name belongs to a link of another kind.
	ErrNotBridge = errors.New("that link is no bridge")
	// ErrRenamed says that somebody has renamed the bridge.
	ErrRenamed = errors.New("it was renamed")
	// ErrAddressConflict says that the bridge has another address already.
	ErrAddressConflict = errors.New("the bridge has another address")
	// ErrBridgeFull says that the bridge has maxPorts, and takes no more.
	ErrBridgeFull = errors.New(`the bridge has no port left (Linux allows 1023); add a second network: copy the configuration, ` +
		`give it another "name", "bridge" and range, and name the ranges of both in "masqExclude" of each`)
)

// MaxPorts is how many ports a bridge has: BR_MAX_PORTS-1 in net/bridge/br_private.h.
const MaxPorts = 1023

// EnsureBridge makes the bridge called name, if it is absent, and sets it up. A new bridge
// has the MTU in bytes (0: the kernel's default), a link-layer address that no port
// changes, no multicast snooping, and a mark that lets its last port take it along. An
// existing bridge keeps what it has. A link of another kind is ErrNotBridge and is left alone.
func EnsureBridge(n *netns.Namespace, name string, mtu int) error {
	created := false
	br, err := rtnl.ByName(n, name)
	if rtnl.Absent(err) {
		if err := checkRenamed(n, name); err != nil {
			return err
		}
		if created, err = createBridge(n, name, mtu); err == nil {
			br, err = rtnl.ByName(n, name)
		}
	}
	if err == nil {
		err = RequireBridge(br)
	}
	if err != nil || br.Up {
		return err
	}
	var up netns.Batch
	if created || MadeByUs(n, br) {
		rtnl.MarkOwn(&up, name)
	}
	rtnl.SetUp(&up, name)
	return n.Send(up)
}

// checkRenamed returns ErrRenamed for a bridge of ours that has another name now. A second one would have
// the same MAC and the same gateway addresses.
func checkRenamed(n *netns.Namespace, name string) error {
	now, err := RenamedTo(n, name)
	if err != nil || now == "" {
		return err
	}
	return fmt.Errorf("bridge %s: %w to %s; rename it back: ip link set %[3]s down; ip link set %[3]s name %[1]s; ip link set %[1]s up", name, ErrRenamed, now)
}

// CheckBridge says whether EnsureBridge could give out a bridge of that name:
// ErrNotBridge where it belongs to something else.
func CheckBridge(n *netns.Namespace, name string) error {
	l, err := rtnl.ByName(n, name)
	if rtnl.Absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return RequireBridge(l)
}

// RequireBridge is ErrNotBridge for a link that is none.
func RequireBridge(l rtnl.Link) error {
	if l.Kind == "bridge" {
		return nil
	}
	return fmt.Errorf("%s is of type %q: %w", l.Name, l.Kind, ErrNotBridge)
}

// createBridge makes a bridge of ours, down and without its mark. created is false when
// another came first: that one's is not ours to mark.
func createBridge(n *netns.Namespace, name string, mtu int) (created bool, err error) {
	var b netns.Batch
	make := b.Add("create bridge "+name, rtnl.NewLinkRequest(name, unix.NLM_F_CREATE|unix.NLM_F_EXCL))
	// Snooping keeps nothing from any port unless somebody on the bridge queries for groups,
	// but each port that comes or goes has the timers of all ports set anew
	// (br_port_state_selection in net/bridge/br_stp_if.c).
	make.AddData(rtnl.LinkInfo("bridge", nl.NewRtAttr(nl.IFLA_BR_MCAST_SNOOPING, nl.Uint8Attr(0)),
		rtnl.LearnAtMost(maxLearned), rtnl.NoLinkLocalLearning()))
	make.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, bridgeMAC(n, name)))
	if mtu != 0 {
		make.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
	}
	err = n.Send(b)
	if errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	return err == nil, err
}

// RenamedTo returns the name that a bridge made as name has now, "" if no bridge of ours was renamed
// so. The bridge is known by its MAC.
func RenamedTo(n *netns.Namespace, name string) (string, error) {
	all, err := allLinks(n)
	if err != nil {
		return "", err
	}
	mac := bridgeMAC(n, name)
	for _, l := range all {
		if l.Kind == "bridge" && l.Alias == plan.Owner && l.Name != name && bytes.Equal(l.MAC, mac) {
			return l.Name, nil
		}
	}
	return "", nil
}

// MadeByUs says whether we made a bridge or VLAN link: by its mark, or by the MAC of a bridge whose
// maker was killed before it could mark it and set it up.
func MadeByUs(n *netns.Namespace, l rtnl.Link) bool {
	return l.Alias == plan.Owner || l.Alias == "" && !l.Up && l.Kind == "bridge" && bytes.Equal(l.MAC, bridgeMAC(n, l.Name))
}

// bridgeMAC is the link-layer address of a bridge that we make, for as long as the host is
// up: containers go on finding their gateway when the bridge is made anew under them.
func bridgeMAC(n *netns.Namespace, name string) net.HardwareAddr {
	boot, err := files.Read("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return rtnl.RandomMAC() // another host might have the same otherwise
	}
	return plan.DigestMAC(sha256.Sum256(fmt.Appendf(nil, "%s %d %s", boot, n.Inode, name)))
}

// DeleteBridge deletes the bridge called name if EnsureBridge made it. The caller makes sure that
// the bridge has no ports. DeleteBridge returns when the bridge is gone for every reader. The
// kernel finishes the deletion later, see rtnl.RemoveLink.
func DeleteBridge(n *netns.Namespace, name string) error {
	br, err := rtnl.ByName(n, name)
	if rtnl.Absent(err) || err == nil && !MadeByUs(n, br) {
		return nil
	}
	if err != nil {
		return err
	}
	return rtnl.RemoveLink(n, br)
}

// EnsureGateway gives a bridge an address. keep are other gateways of the same network,
// which no conflict is seen with.
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
		if sameAddress6(p, gateway) { // the kernel takes an IPv6 address once, by whatever prefix
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
	if gateway.Addr().Is6() && br.Alias == plan.Owner {
		if err := n.SetSysctlIfAny("ipv6/conf/"+bridge+"/disable_ipv6", "0"); err != nil { // it may be 1 by default
			return err
		}
		// What the host forwards from elsewhere it asks neighbours for by this one
		// (ndisc_send_ns in net/ipv6/ndisc.c): without it, nobody but the host itself
		// reaches a container that has not spoken yet.
		rtnl.AddAddress(&b, br, rtnl.LinkLocal(br.MAC), false)
	}
	return n.Send(b)
}

// FindConflict returns an address among present, but not among keep, that is in the
// gateway's way, in the sense of the reference plugin's forceAddress.
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

// HasGateway says whether a gateway is among the addresses of a link. In IPv6 the same address in
// a larger subnet does as well.
func HasGateway(present []netip.Prefix, gateway netip.Prefix) bool {
	return slices.ContainsFunc(present, func(p netip.Prefix) bool {
		return p == gateway || sameAddress6(p, gateway) && p.Bits() < gateway.Bits()
	})
}

func sameAddress6(a, b netip.Prefix) bool { return a.Addr() == b.Addr() && a.Addr().Is6() }

// RangeConflict is addressConflict with the gateway of containers of ours.
func RangeConflict(bridge string, gateway, other netip.Prefix) error {
	return fmt.Errorf("give bridge %s address %s: %w, %s, the gateway of containers that are attached; set \"gatewayConflict\" to \"add\" "+
		"to keep both until the last of them has gone, or delete them first", bridge, gateway, ErrAddressConflict, other)
}

// AddressConflict is ErrAddressConflict with both addresses and the remedy.
func AddressConflict(bridge string, gateway, other netip.Prefix) error {
	return fmt.Errorf("give bridge %s address %s: %w, %s; delete that, or set \"gatewayConflict\" to \"replace\" or \"add\"", bridge, gateway, ErrAddressConflict, other)
}
