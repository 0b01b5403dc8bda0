package setup

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
)

// pieceSize is how much of a listing of links is read at once, in bytes: as libmnl does.
const pieceSize = 8 << 10

// ours says whether we made a port. One without our alias is half made, by a
// process that was killed; its name gives it away.
func (l link) ours() bool {
	_, ok := ParseAttachment(l.alias)
	return ok || l.alias == "" && isPort(l.name)
}

// bridgeOf is the bridge that a link is a port of; the zero link if it is none's, or that has gone.
func (n *Namespace) bridgeOf(l link) (br link, err error) {
	if l.master == 0 {
		return br, nil
	}
	if br, err = n.linkAt(l.master); absent(err) {
		err = nil
	}
	return br, err
}

// portless says whether a bridge has no port, whoever's.
func (n *Namespace) portless(bridge string) (bool, error) {
	none := true
	err := n.eachPort(bridge, func(link) bool { none = false; return false })
	return none, err
}

// eachPort calls f with each port of a bridge until f says false, and perhaps with some of
// them again, when ports have come or gone meanwhile. The kernel
// fills a listing as it is read, so a caller who needs one port costs no more
// with a thousand of them. A bridge that does not exist has no ports.
func (n *Namespace) eachPort(bridge string, f func(link) bool) error {
	br, err := n.link(bridge)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for {
		err := n.listPorts(br.index, f)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
}

// listPorts is one pass of eachPort, on a socket of its own, which is closed with
// the rest of the listing unread. Bridge 0 stands for all links. It does not ask to be spared
// the counters: with any IFLA_EXT_MASK the kernel first looks through all links for the
// largest answer (rtnl_calcit in net/core/rtnetlink.c).
func (n *Namespace) listPorts(bridge int, f func(link) bool) error {
	socket, err := n.newSocket(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer socket.close()
	// While an answer is read the kernel writes the next, as large as there is room for here
	// (netlink_recvmsg in net/netlink/af_netlink.c), for nothing where the first was enough.
	socket.buffer = socket.buffer[:pieceSize]
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	if bridge != 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))))
	}
	err = socket.send(req.Serialize())
	if err == nil {
		var failed error
		err = socket.receive(func(m message) bool {
			if failed = m.failure(); failed != nil || m.kind == unix.NLMSG_DONE {
				return false
			}
			return f(parseLink(m.data))
		})
		err = errors.Join(err, failed)
	}
	if err != nil {
		return fmt.Errorf("list ports: %w", err)
	}
	return nil
}

// allLinks lists the links of the namespace.
func (n *Namespace) allLinks() ([]link, error) {
	return dump(func() (all []link, err error) {
		err = n.listPorts(0, func(l link) bool { all = append(all, l); return true })
		return all, err
	})
}

// FoundPort is a port of ours as it is on the host.
type FoundPort struct {
	Attachment
	Name       string
	Key        string // what the attachment's Port is: Name, unless the link was given
	Bridge     string // none when empty
	Up         bool   // it is finished
	Forwarding bool   // the bridge forwards what comes by it
	Isolated   bool
	Hairpin    bool
	MTU        int       // bytes
	Bandwidth  Bandwidth // its rates; the bursts are not told
}

// Ports lists the ports of ours in the namespace, on whichever bridge they are.
// Those without an alias, half made by a process that was killed, have no
// Attachment.
func (n *Namespace) Ports() (ports []FoundPort, err error) {
	all, err := n.allLinks()
	names, byName := map[int]string{}, map[string]link{}
	for _, l := range all {
		names[l.index], byName[l.name] = l.name, l
	}
	for _, l := range all {
		if l.ours() && l.port != "" {
			a, _ := ParseAttachment(l.alias)
			limits, limitsErr := n.bandwidth(l, byName[ifbOf(l.port)])
			err = errors.Join(err, limitsErr)
			ports = append(ports, FoundPort{
				Attachment: a, Name: l.name, Key: l.port, Bridge: names[l.master], Up: l.up, Forwarding: l.forwarding,
				Isolated: l.isolated, Hairpin: l.hairpin, MTU: l.mtu, Bandwidth: limits,
			})
		}
	}
	return ports, err
}

// HasPort says whether an attachment has its port, finished or not. Where the kernel does not
// tell, it may have.
func (n *Namespace) HasPort(a Attachment) bool {
	_, err := n.link(a.Port())
	return !absent(err)
}

// Collect deletes the ports of a network's attachments that are not in valid, on whichever
// bridge they are, with the last of all the network, and those that a killed process has left
// on the bridge given. It goes on after errors.
func (n *Namespace) Collect(network, bridge string, valid []Attachment) error {
	gone := unlisted(network, valid)
	all, err := n.settledLinks()
	if err != nil {
		return err
	}
	byIndex := map[int]link{}
	for _, l := range all {
		byIndex[l.index] = l
	}
	bridges := []string{bridge}
	var before batch
	var stale, given []string
	for _, l := range all {
		a, known := ParseAttachment(l.alias)
		on := byIndex[l.master]
		if !known && on.name == bridge {
			a.Network = network // as far as anybody can tell
		}
		if !l.ours() || l.port == "" || !gone(portOwner{l.port, a}) {
			continue
		}
		bridges = append(bridges, on.name)
		before.keepMACWithout(on, l)
		if l.port == l.name {
			stale = append(stale, l.name)
		} else {
			given = append(given, l.port)
		}
	}
	errs := []error{n.send(before), n.deleteLinks(append(stale, staleIFBs(all, gone)...))}
	for _, name := range given {
		_, err := n.removePort(name)
		errs = append(errs, err)
	}
	abandoned, err := n.published(func(m mapping) bool { return gone(m.owner) })
	errs = append(errs, err, n.deleteMappings(abandoned))
	unguarded, err := n.guarded(gone)
	errs = append(errs, err)
	for _, o := range unguarded {
		errs = append(errs, n.unguardPort(o.port))
	}
	return errors.Join(append(errs, n.ReleaseNetwork(bridges...))...)
}

// settledLinks is allLinks at a time when none is half made but by a process that was killed.
func (n *Namespace) settledLinks() ([]link, error) {
	lock, err := n.lock(flock.Exclusive)
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	return n.allLinks()
}
