package bridges

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// pieceSize is how much of a listing of links is read at once, in bytes: as libmnl does.
const pieceSize = 8 << 10

// BridgeOf is the bridge that a link is a port of; the zero link if it is none's, or that has gone.
func BridgeOf(n *netns.Namespace, l rtnl.Link) (br rtnl.Link, err error) {
	if l.Master == 0 {
		return br, nil
	}
	if br, err = rtnl.ByIndex(n, l.Master); rtnl.Absent(err) {
		err = nil
	}
	return br, err
}

// HasNoPort says whether a bridge has no port, whoever's.
func HasNoPort(n *netns.Namespace, bridge string) (bool, error) {
	none := true
	err := EachPort(n, bridge, func(rtnl.Link) bool { none = false; return false })
	return none, err
}

// EachPort calls f with each port of a bridge until f says false, and perhaps with some of
// them again, when ports have come or gone meanwhile. The kernel
// fills a listing as it is read, so a caller who needs one port costs no more
// with a thousand of them. A bridge that does not exist has no ports.
func EachPort(n *netns.Namespace, bridge string, f func(rtnl.Link) bool) error {
	br, err := rtnl.ByName(n, bridge)
	if rtnl.Absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for {
		err := listPorts(n, br.Index, f)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
}

// listPorts is one pass of eachPort, on a socket of its own, which is closed with
// the rest of the listing unread. Bridge 0 stands for all links. It does not ask to be spared
// the counters: with any IFLA_EXT_MASK the kernel first looks through all links for the
// largest answer (rtnl_calcit in net/core/rtnetlink.c).
func listPorts(n *netns.Namespace, bridge int, f func(rtnl.Link) bool) error {
	socket, err := n.NewSocket(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer socket.Close()
	// While an answer is read the kernel writes the next, as large as there is room for here
	// (netlink_recvmsg in net/netlink/af_netlink.c), for nothing where the first was enough.
	socket.Buffer = socket.Buffer[:pieceSize]
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

// allLinks lists the links of the namespace.
func allLinks(n *netns.Namespace) ([]rtnl.Link, error) {
	return netns.Dump(func() (all []rtnl.Link, err error) {
		err = listPorts(n, 0, func(l rtnl.Link) bool { all = append(all, l); return true })
		return all, err
	})
}

// FoundPort is a port of ours as it is on the host.
type FoundPort struct {
	plan.Attachment
	Name       string
	Key        string // what the attachment's Port is: Name, unless the link was given
	Bridge     string // none when empty
	Up         bool   // it is finished
	Forwarding bool   // the bridge forwards what comes by it
	Isolated   bool
	Hairpin    bool
	MTU        int            // bytes
	Bandwidth  plan.Bandwidth // its rates; the bursts are not told
}

// Ports lists the ports of ours in the namespace, on whichever bridge they are.
// Those without an alias, half made by a process that was killed, have no
// Attachment.
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

// HasPort reports whether an attachment has a port, finished or not.
func HasPort(n *netns.Namespace, a plan.Attachment) (bool, error) {
	_, err := rtnl.ByName(n, a.Port())
	if rtnl.Absent(err) {
		return false, nil
	}
	return err == nil, err
}

// LinksUnderLock is allLinks at a time when none is half made but by a process that was killed.
func LinksUnderLock(n *netns.Namespace) ([]rtnl.Link, error) {
	lock, err := n.Lock(flock.Exclusive)
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	return allLinks(n)
}
