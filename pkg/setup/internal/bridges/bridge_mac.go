package bridges

import (
	"bytes"
	"net"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// A bridge of somebody else may have no assigned MAC address. The kernel then gives the bridge the
// lowest MAC address of its ports, and 00:00:00:00:00:00 without ports (br_stp_recalculate_bridge_id in
// net/bridge/br_stp_if.c). After each change, the bridge's neighbours have a wrong neighbour entry.
//
// Our ports have very high MAC addresses, so they usually change nothing. In the other cases we assign
// the bridge the MAC address that it has:
//   - before its first port joins,
//   - after a port has joined whose MAC address the bridge has taken,
//   - before such a port leaves.

// AssignMAC assigns a MAC address to a bridge. Ports do not change it any more.
func AssignMAC(b *netns.Batch, br rtnl.Link, mac net.HardwareAddr) {
	req := rtnl.ChangeRequest(br)
	req.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	b.Ensure("assign bridge "+br.Name+" its MAC address", req, unix.ENODEV)
}

// HasNoMAC reports whether a bridge has no MAC address, because it has no port.
func HasNoMAC(l rtnl.Link) bool {
	return l.Index != 0 && !slices.ContainsFunc(l.MAC, func(b byte) bool { return b != 0 })
}

// KeepMACBeforeJoin prepares a bridge for its first port. Several processes may call it at once: each
// assigns the same address, because its own port has not joined yet.
func KeepMACBeforeJoin(n *netns.Namespace, br rtnl.Link) error {
	if br.Alias == plan.Owner || HasNoMAC(br) {
		return nil
	}
	empty, err := HasNoPort(n, br.Name)
	if !empty || err != nil {
		return err
	}
	var b netns.Batch
	AssignMAC(&b, br, br.MAC)
	return n.Send(b)
}

// KeepMACAfterJoin returns the MAC address of a bridge that a port has just joined. If the bridge has
// taken the port's MAC address, KeepMACAfterJoin assigns the previous one.
func KeepMACAfterJoin(n *netns.Namespace, before rtnl.Link, port net.HardwareAddr) (net.HardwareAddr, error) {
	if before.Alias == plan.Owner {
		return before.MAC, nil
	}
	now, err := rtnl.ByIndex(n, before.Index)
	if err != nil || !bytes.Equal(now.MAC, port) {
		return now.MAC, err
	}
	var b netns.Batch
	AssignMAC(&b, before, before.MAC)
	return before.MAC, n.Send(b)
}

// KeepMACBeforeLeave prepares a bridge for a port that leaves. The bridge may have the MAC address of
// that port: an older build gave ports low addresses, and an existing link may have one.
func KeepMACBeforeLeave(b *netns.Batch, br, port rtnl.Link) {
	if br.Index != 0 && bytes.Equal(br.MAC, port.MAC) {
		AssignMAC(b, br, br.MAC)
	}
}
