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

// Another program may have created the bridge without assigning a MAC address. The kernel then
// gives the bridge the lowest MAC address of its ports, or 00:00:00:00:00:00 if it has no ports
// (br_stp_recalculate_bridge_id in net/bridge/br_stp_if.c). Each change of this address makes the
// neighbour entries for the bridge wrong.
//
// Our ports have very high MAC addresses, so they usually do not change the address of the bridge.
// They would change it in three cases. In these cases, we first assign the bridge its present
// address:
//   - The first port joins.
//   - A port joins whose MAC address is lower than that of the bridge.
//   - A port leaves whose MAC address is that of the bridge.

// AssignMAC assigns a MAC address to a bridge. A bridge with an assigned address keeps it when
// ports join or leave.
func AssignMAC(b *netns.Batch, br rtnl.Link, mac net.HardwareAddr) {
	req := rtnl.ChangeRequest(br)
	req.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	b.Ensure("assign bridge "+br.Name+" its MAC address", req, unix.ENODEV)
}

// HasNoMAC reports whether the MAC address of bridge l is 00:00:00:00:00:00. This means that the
// bridge has no assigned address and no port.
func HasNoMAC(l rtnl.Link) bool {
	return l.Index != 0 && !slices.ContainsFunc(l.MAC, func(b byte) bool { return b != 0 })
}

// KeepMACBeforeJoin assigns bridge br its present MAC address, if a joining port would otherwise
// change that address. The parameter port is the MAC address of the joining port. Several processes
// may call KeepMACBeforeJoin at once, because all of them assign the same address.
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

// KeepMACBeforeLeave assigns bridge br its present MAC address, if the port that leaves has the
// same address. Equal addresses mean that the kernel took the address of the bridge from this port,
// because it takes the lowest MAC address of all ports. Our ports have high MAC addresses. Therefore
// this port is a Port.ExistingLink, or a port of an older version of bridgeveth.
func KeepMACBeforeLeave(b *netns.Batch, br, port rtnl.Link) {
	if br.Index != 0 && bytes.Equal(br.MAC, port.MAC) {
		AssignMAC(b, br, br.MAC)
	}
}
