package setup

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/files"
)

var (
	// ErrNotBridge says that the bridge's name belongs to a link of another kind.
	ErrNotBridge = errors.New("that link is no bridge")
	// ErrAddressConflict says that the bridge has another address already.
	ErrAddressConflict = errors.New("the bridge has another address")
	// ErrBridgeFull says that the bridge has maxPorts, and takes no more.
	ErrBridgeFull = errors.New(`the bridge has no port left (Linux allows 1023); add a second network: copy the configuration, ` +
		`give it another "name", "bridge" and range, and name the ranges of both in "masqExclude" of each`)
)

// maxPorts is how many ports a bridge has: BR_MAX_PORTS-1 in net/bridge/br_private.h.
const maxPorts = 1023

// EnsureBridge makes the bridge called name, if it is absent, and sets it up. A new bridge
// has the MTU in bytes (0: the kernel's default), a link-layer address that no port
// changes, no multicast snooping, and a mark that lets its last port take it along. An
// existing bridge keeps what it has. A link of another kind is ErrNotBridge and is left alone.
func (n *Namespace) EnsureBridge(name string, mtu int) error {
	created := false
	br, err := n.link(name)
	if absent(err) {
		if created, err = n.createBridge(name, mtu); err == nil {
			br, err = n.link(name)
		}
	}
	if err == nil {
		err = br.mustBridge()
	}
	if err != nil || br.up {
		return err
	}
	var up batch
	if created || n.made(br) {
		up.markOwn(name)
	}
	up.setUp(name)
	return n.send(up)
}

// CheckBridge says whether EnsureBridge could give out a bridge of that name:
// ErrNotBridge where it belongs to something else.
func (n *Namespace) CheckBridge(name string) error {
	l, err := n.link(name)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.mustBridge()
}

// mustBridge is ErrNotBridge for a link that is none.
func (l link) mustBridge() error {
	if l.kind == "bridge" {
		return nil
	}
	return fmt.Errorf("%s is of type %q: %w", l.name, l.kind, ErrNotBridge)
}

// createBridge makes a bridge of ours, down and without its mark. created is false when
// another came first: that one's is not ours to mark.
func (n *Namespace) createBridge(name string, mtu int) (created bool, err error) {
	var b batch
	make := b.add("create bridge "+name, newLinkRequest(name, unix.NLM_F_CREATE|unix.NLM_F_EXCL))
	// Snooping keeps nothing from any port unless somebody on the bridge queries for groups,
	// but each port that comes or goes has the timers of all ports set anew
	// (br_port_state_selection in net/bridge/br_stp_if.c).
	make.AddData(linkInfo("bridge", nl.NewRtAttr(nl.IFLA_BR_MCAST_SNOOPING, nl.Uint8Attr(0))))
	make.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, n.bridgeMAC(name)))
	if mtu != 0 {
		make.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
	}
	err = n.send(b)
	if errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	return err == nil, err
}

// made says whether we made a bridge or VLAN link: by its mark, or by the MAC of a bridge whose
// maker was killed before it could mark it and set it up.
func (n *Namespace) made(l link) bool {
	return l.alias == owner || l.alias == "" && !l.up && l.kind == "bridge" && bytes.Equal(l.mac, n.bridgeMAC(l.name))
}

// bridgeMAC is the link-layer address of a bridge that we make, for as long as the host is
// up: containers go on finding their gateway when the bridge is made anew under them.
func (n *Namespace) bridgeMAC(name string) net.HardwareAddr {
	boot, err := files.Read("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return randomMAC() // another host might have the same otherwise
	}
	return digestMAC(sha256.Sum256(fmt.Appendf(nil, "%s %d %s", boot, n.Inode, name)))
}

// DeleteBridge deletes the bridge called name if EnsureBridge made it. Ports
// that it still has lose their bridge, so the caller makes sure there are none.
func (n *Namespace) DeleteBridge(name string) error {
	br, err := n.link(name)
	if absent(err) || err == nil && !n.made(br) {
		return nil
	}
	if err != nil {
		return err
	}
	return n.deleteLink(name)
}

// Conflict says what becomes of an address of the bridge's that stands in a gateway's
// way: in IPv4 any other, in IPv6 one of an overlapping subnet.
type Conflict int

const (
	// ConflictError refuses the gateway: ErrAddressConflict.
	ConflictError Conflict = iota
	// ConflictReplace deletes the other address.
	ConflictReplace
	// ConflictAdd leaves it beside the gateway. One that we set goes with the last container
	// of its subnet.
	ConflictAdd
)

var conflictNames = []string{"error", "replace", "add"}

// ParseConflict reads a Conflict by its name: error, replace or add.
func ParseConflict(name string) (Conflict, error) {
	if i := slices.Index(conflictNames, name); i >= 0 {
		return Conflict(i), nil
	}
	return 0, fmt.Errorf("%q is none of %s", name, strings.Join(conflictNames, ", "))
}

// EnsureGateway gives a bridge an address. keep are other gateways of the same network,
// which no conflict is seen with.
func (n *Namespace) EnsureGateway(bridge string, gateway netip.Prefix, keep []netip.Prefix, policy Conflict) error {
	br, err := n.link(bridge)
	if err != nil {
		return err
	}
	present, _, err := n.addressesOf(br)
	if err != nil || hasGateway(present, gateway) {
		return err
	}
	var b batch
	for _, p := range present {
		if sameAddress6(p, gateway) { // the kernel takes an IPv6 address once, by whatever prefix
			b.deleteAddress(br, p)
		}
	}
	for policy != ConflictAdd {
		other, found := findConflict(gateway, present, keep)
		if !found {
			break
		}
		if policy == ConflictError {
			return addressConflict(bridge, gateway, other)
		}
		b.deleteAddress(br, other)
		present = slices.DeleteFunc(present, func(p netip.Prefix) bool { return p == other })
	}
	b.addAddress(br, gateway, false)
	if gateway.Addr().Is6() && br.alias == owner {
		if err := n.setSysctlIfAny("ipv6/conf/"+bridge+"/disable_ipv6", "0"); err != nil { // it may be 1 by default
			return err
		}
		// What the host forwards from elsewhere it asks neighbours for by this one
		// (ndisc_send_ns in net/ipv6/ndisc.c): without it, nobody but the host itself
		// reaches a container that has not spoken yet.
		b.addAddress(br, linkLocal(br.mac), false)
	}
	return n.send(b)
}

// findConflict returns an address among present, but not among keep, that is in the
// gateway's way, in the sense of the reference plugin's forceAddress.
func findConflict(gateway netip.Prefix, present, keep []netip.Prefix) (netip.Prefix, bool) {
	i := slices.IndexFunc(present, func(p netip.Prefix) bool {
		conflict := gateway.Overlaps(p) || gateway.Addr().Is4() && p.Addr().Is4()
		return conflict && !linkLocal6(p) && !slices.Contains(keep, p)
	})
	if i < 0 {
		return netip.Prefix{}, false
	}
	return present[i], true
}

// hasGateway says whether a gateway is among the addresses of a link. In IPv6 the same address in
// a larger subnet does as well.
func hasGateway(present []netip.Prefix, gateway netip.Prefix) bool {
	return slices.ContainsFunc(present, func(p netip.Prefix) bool {
		return p == gateway || sameAddress6(p, gateway) && p.Bits() < gateway.Bits()
	})
}

func sameAddress6(a, b netip.Prefix) bool { return a.Addr() == b.Addr() && a.Addr().Is6() }

// rangeConflict is addressConflict with the gateway of containers of ours.
func rangeConflict(bridge string, gateway, other netip.Prefix) error {
	return fmt.Errorf("give bridge %s address %s: %w, %s, the gateway of containers that are attached; set \"gatewayConflict\" to \"add\" "+
		"to keep both until the last of them has gone, or delete them first", bridge, gateway, ErrAddressConflict, other)
}

func addressConflict(bridge string, gateway, other netip.Prefix) error {
	return fmt.Errorf("give bridge %s address %s: %w, %s; delete that, or set \"gatewayConflict\" to \"replace\" or \"add\"", bridge, gateway, ErrAddressConflict, other)
}
