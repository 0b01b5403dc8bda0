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
// three cases they would change it, so we first assign the bridge its present address:
//   - The first port joins.
//   - A port joins whose MAC address is lower.
//   - A port leaves, and the bridge has its address.

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

// KeepMACBeforeJoin assigns a bridge its present MAC address if a port with this MAC address would change
// it. Several processes may call it at once: all of them assign the same address.
func KeepMACBeforeJoin(n *netns.Namespace, b *netns.Batch, br rtnl.Link, port net.HardwareAddr) error {
	if br.Own || HasNoMAC(br) {
		return nil
	}
	if bytes.Compare(port, br.MAC) > 0 {
		empty, err := HasNoPort(n, br.Name)
		if !empty || err != nil {
			return err
		}
	}
	AssignMAC(b, br, br.MAC)
	return nil
}

// KeepMACBeforeLeave assigns a bridge its present MAC address if a port with this address leaves. Only
// ports of older builds and existing links have MAC addresses low enough for this case.
func KeepMACBeforeLeave(b *netns.Batch, br, port rtnl.Link) {
	if br.Index != 0 && bytes.Equal(br.MAC, port.MAC) {
		AssignMAC(b, br, br.MAC)
	}
}
