package bridges

import (
	"bytes"
	"net"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// A foreign bridge may have no assigned MAC address. The kernel then gives the bridge the lowest MAC
// address of its ports, or 00:00:00:00:00:00 if it has no ports (br_stp_recalculate_bridge_id in
// net/bridge/br_stp_if.c). After each change, the neighbour entries for the bridge are wrong.
//
// Our ports have very high MAC addresses, so they usually do not change the address of the bridge. In
// three cases they would change it, so we assign an address to the bridge:
//   - The first port joins. KeepMACBeforeJoin assigns the present address first.
//   - The bridge has taken the address of a new port. KeepMACAfterJoin assigns the previous address.
//   - A port leaves, and the bridge has its address. KeepMACBeforeLeave assigns this address first.

// AssignMAC assigns a MAC address to a bridge. A bridge keeps an assigned address when ports join or
// leave.
func AssignMAC(b *netns.Batch, br rtnl.Link, mac net.HardwareAddr) {
	req := rtnl.ChangeRequest(br)
	req.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	b.Ensure("assign bridge "+br.Name+" its MAC address", req, unix.ENODEV)
}

// HasNoMAC reports whether the MAC address of a bridge is 00:00:00:00:00:00: no address is assigned, and
// the bridge has no port.
func HasNoMAC(l rtnl.Link) bool {
	return l.Index != 0 && !slices.ContainsFunc(l.MAC, func(b byte) bool { return b != 0 })
}

// KeepMACBeforeJoin assigns a bridge without ports its present MAC address. Several processes may call it
// at once: all of them assign the same address, because none of their ports has joined yet.
func KeepMACBeforeJoin(n *netns.Namespace, br rtnl.Link) error {
	if br.Own || HasNoMAC(br) {
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
// taken the port's MAC address, KeepMACAfterJoin assigns the previous address to the bridge.
func KeepMACAfterJoin(n *netns.Namespace, before rtnl.Link, port net.HardwareAddr) (net.HardwareAddr, error) {
	if before.Own {
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

// KeepMACBeforeLeave assigns a bridge its present MAC address if a port with this address leaves. Only
// ports of older builds and existing links have MAC addresses low enough for this case.
func KeepMACBeforeLeave(b *netns.Batch, br, port rtnl.Link) {
	if br.Index != 0 && bytes.Equal(br.MAC, port.MAC) {
		AssignMAC(b, br, br.MAC)
	}
}
