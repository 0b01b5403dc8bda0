package bridges

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// listBufferSize is the size of the buffer for a listing of links, in bytes. libmnl uses the same size.
const listBufferSize = 8 << 10

// BridgeOf returns the bridge that link l is on. It returns the zero Link if l is on no bridge, or
// if the bridge was deleted meanwhile.
func BridgeOf(n *netns.Namespace, l rtnl.Link) (br rtnl.Link, err error) {
	if l.Master == 0 {
		return br, nil
	}
	if br, err = rtnl.ByIndex(n, l.Master); rtnl.Absent(err) {
		err = nil
	}
	return br, err
}

// HasNoPort reports whether a bridge has no ports at all, neither ours nor those of other programs.
func HasNoPort(n *netns.Namespace, bridge string) (bool, error) {
	empty := true
	err := EachPort(n, bridge, func(rtnl.Link) bool { empty = false; return false })
	return empty, err
}

// EachPort calls f with each port of a bridge until f returns false. If ports join or leave meanwhile, f
// may get a port twice. A bridge that does not exist has no ports. The kernel produces a listing in
// parts, while EachPort reads it. Therefore a caller that needs only one port does not wait for all
// ports.
func EachPort(n *netns.Namespace, bridge string, f func(rtnl.Link) bool) error {
	br, err := rtnl.ByName(n, bridge)
	if rtnl.Absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return netns.Repeat(func() error { return listPorts(n, br.Index, f) })
}

// listPorts calls f with each port of a bridge until f returns false. If bridge is 0, it calls f with
// each link of the namespace. It opens its own socket, because after an incomplete listing, a socket
// cannot be used again. The request has no IFLA_EXT_MASK, because with this attribute the kernel first
// searches all links for the largest message (rtnl_calcit in net/core/rtnetlink.c).
func listPorts(n *netns.Namespace, bridge int, f func(rtnl.Link) bool) error {
	socket, err := n.NewSocket(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer socket.Close()
	// A small buffer saves work if f stops early. During each read, the kernel already produces the next
	// part of the listing, and this part is as long as the buffer (netlink_recvmsg in
	// net/netlink/af_netlink.c).
	socket.Buffer = socket.Buffer[:listBufferSize]
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	if bridge != 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))))
	}
	err = socket.Send(req.Serialize())
	if err == nil {
		var failed error
		err = socket.Receive(func(m netns.Message) bool {
			if failed = m.Failure(); failed != nil || m.Kind == unix.NLMSG_DONE {
				return false
			}
			return f(rtnl.ParseLink(m.Data))
		})
		err = errors.Join(err, failed)
	}
	if err != nil {
		return fmt.Errorf("list ports: %w", err)
	}
	return nil
}

// allLinks returns all links of the namespace.
func allLinks(n *netns.Namespace) ([]rtnl.Link, error) {
	return netns.Dump(func() (all []rtnl.Link, err error) {
		err = listPorts(n, 0, func(l rtnl.Link) bool { all = append(all, l); return true })
		return all, err
	})
}

// FoundPort describes a bridge port of ours that exists on the host.
type FoundPort struct {
	plan.Attachment
	Name       string
	Key        string // Attachment.Port(); differs from Name only for a Port.ExistingLink
	Bridge     string // "" if the port is on no bridge
	Up         bool   // ADD has finished the port
	Forwarding bool   // the bridge forwards frames from the port
	Isolated   bool
	Hairpin    bool
	MTU        int            // bytes
	Bandwidth  plan.Bandwidth // the rates only
}

// Ports returns our ports in the namespace, on all bridges. If a killed process has left a port
// without an alias, the Attachment of this port is empty.
func Ports(n *netns.Namespace) (ports []FoundPort, err error) {
	all, err := allLinks(n)
	names, byName := map[int]string{}, map[string]rtnl.Link{}
	for _, l := range all {
		names[l.Index], byName[l.Name] = l.Name, l
	}
	for _, l := range all {
		if l.Ours() && l.Port != "" {
			a, _ := plan.ParseAttachment(l.Alias)
			limits, limitsErr := bandwidth(n, l, byName[plan.IFBOf(l.Port)])
			err = errors.Join(err, limitsErr)
			ports = append(ports, FoundPort{
				Attachment: a, Name: l.Name, Key: l.Port, Bridge: names[l.Master], Up: l.Up, Forwarding: l.Forwarding,
				Isolated: l.Isolated, Hairpin: l.Hairpin, MTU: l.MTU, Bandwidth: limits,
			})
		}
	}
	return ports, err
}

// PortCounts returns the number of ports of each bridge that has ports, including the ports of other
// programs. The key of the map is the name of the bridge. Bonds and VRFs are in the map too.
func PortCounts(n *netns.Namespace) (map[string]int, error) {
	all, err := allLinks(n)
	names, counts := map[int]string{}, map[string]int{}
	for _, l := range all {
		names[l.Index] = l.Name
	}
	for _, l := range all {
		if l.Master != 0 {
			counts[names[l.Master]]++
		}
	}
	return counts, err
}

// HasPort reports whether an attachment has a port. The port may be unfinished.
func HasPort(n *netns.Namespace, a plan.Attachment) (bool, error) {
	_, err := rtnl.ByName(n, a.Port())
	if rtnl.Absent(err) {
		return false, nil
	}
	return err == nil, err
}

// LinksUnderLock returns all links. It holds the exclusive lock, because ADD creates a port and sets its
// alias under the same lock. Therefore, if a listed port has no alias, a killed process created the port.
func LinksUnderLock(n *netns.Namespace) ([]rtnl.Link, error) {
	lock, err := n.Lock(flock.Exclusive)
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	return allLinks(n)
}
