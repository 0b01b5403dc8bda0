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

// A bridge that somebody else made may have no assigned MAC address. The kernel then gives the bridge the
// lowest MAC address of its ports, and 00:00:00:00:00:00 after the last port has gone
// (br_stp_recalculate_bridge_id in net/bridge/br_stp_if.c). Each change cuts the bridge's neighbours
// off until they ask again. So our ports have the highest MAC addresses. Where that is not enough, the
// bridge is assigned the MAC address that it has:
//   - before its first port joins,
//   - after a port has joined that the bridge took its MAC address from,
//   - before such a port leaves.

// AssignMAC assigns a bridge a link-layer address, which no port changes any more.
func AssignMAC(b *netns.Batch, br rtnl.Link, mac net.HardwareAddr) {
	req := rtnl.ChangeRequest(br)
	req.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	b.Ensure("assign bridge "+br.Name+" its MAC address", req, unix.ENODEV)
}

// HasNoMAC says whether a bridge has no MAC address, because its last port has gone.
func HasNoMAC(l rtnl.Link) bool {
	return l.Index != 0 && !slices.ContainsFunc(l.MAC, func(b byte) bool { return b != 0 })
}

// KeepMACBeforeJoin prepares a bridge for its first port. Any number of processes may do so at once: each
// assigns the same address, because each does so before its own port joins.
func KeepMACBeforeJoin(n *netns.Namespace, br rtnl.Link) error {
	if br.Alias == plan.Owner || HasNoMAC(br) {
		return nil
	}
	bare, err := HasNoPort(n, br.Name)
	if !bare || err != nil {
		return err
	}
	var b netns.Batch
	AssignMAC(&b, br, br.MAC)
	return n.Send(b)
}

// KeepMACAfterJoin returns the MAC address of a bridge that a port has just joined. If the bridge took
// the port's, it gets the one from before again.
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

// KeepMACBeforeLeave prepares a bridge for a port that leaves. The bridge may have the MAC address of a port
// of an older build, whose addresses were low, or of a link that was given.
func KeepMACBeforeLeave(b *netns.Batch, br, port rtnl.Link) {
	if br.Index != 0 && bytes.Equal(br.MAC, port.MAC) {
		AssignMAC(b, br, br.MAC)
	}
}
