package setup

import (
	"bytes"
	"net"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A bridge that somebody else made may have no assigned MAC address. The kernel then gives the bridge the
// lowest MAC address of its ports, and 00:00:00:00:00:00 after the last port has gone
// (br_stp_recalculate_bridge_id in net/bridge/br_stp_if.c). Each change cuts the bridge's neighbours
// off until they ask again. So our ports have the highest MAC addresses. Where that is not enough, the
// bridge is assigned the MAC address that it has:
//   - before its first port joins,
//   - after a port has joined that the bridge took its MAC address from,
//   - before such a port leaves.

// assignMAC assigns a bridge a link-layer address, which no port changes any more.
func (b *batch) assignMAC(br link, mac net.HardwareAddr) {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, 0)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(br.index) // another bridge may have the name by now
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	b.ensure("assign bridge "+br.name+" its MAC address", req, unix.ENODEV)
}

// lostMAC says whether a bridge has no MAC address, because its last port has gone.
func (l link) lostMAC() bool {
	return l.index != 0 && !slices.ContainsFunc(l.mac, func(b byte) bool { return b != 0 })
}

// keepMACBefore prepares a bridge for its first port. Any number of processes may do so at once: each
// assigns the same address, because each does so before its own port joins.
func (n *Namespace) keepMACBefore(br link) error {
	if br.alias == owner || br.lostMAC() {
		return nil
	}
	bare, err := n.portless(br.name)
	if !bare || err != nil {
		return err
	}
	var b batch
	b.assignMAC(br, br.mac)
	return n.send(b)
}

// keepMACWith returns the MAC address of a bridge that a port has just joined. If the bridge took
// the port's, it gets the one from before again.
func (n *Namespace) keepMACWith(before link, port net.HardwareAddr) (net.HardwareAddr, error) {
	if before.alias == owner {
		return before.mac, nil
	}
	now, err := n.linkAt(before.index)
	if err != nil || !bytes.Equal(now.mac, port) {
		return now.mac, err
	}
	var b batch
	b.assignMAC(before, before.mac)
	return before.mac, n.send(b)
}

// keepMACWithout prepares a bridge for a port that leaves. The bridge may have the MAC address of a port
// of an older build, whose addresses were low, or of a link that was given.
func (b *batch) keepMACWithout(br, port link) {
	if br.index != 0 && bytes.Equal(br.mac, port.mac) {
		b.assignMAC(br, br.mac)
	}
}
