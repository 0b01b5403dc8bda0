package setup

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// extSkipStats is RTEXT_FILTER_SKIP_STATS in linux/rtnetlink.h: half of what
	// the kernel says about a link is counters.
	extSkipStats = 1 << 3

	brportState = 1 // IFLA_BRPORT_STATE in linux/if_link.h
	brportMode  = 4 // IFLA_BRPORT_MODE: hairpin

	stateForwarding = 3 // BR_STATE_FORWARDING in linux/if_bridge.h
)

// bridgePort is a link as a port of a bridge.
type bridgePort struct {
	name, alias string
	master      int // index of the bridge; 0 is none
	mtu         int // bytes
	up          bool
	forwarding  bool
	hairpin     bool
}

// ours says whether we made the port. One without our alias is half made, by a
// process that was killed; its name gives it away.
func (p bridgePort) ours() bool {
	_, ok := ParseAttachment(p.alias)
	return ok || p.alias == "" && isPort(p.name)
}

// eachPort calls f with each port of a bridge until f says false. The kernel
// fills a listing as it is read, so a caller who needs one port costs no more
// with a thousand of them. A bridge that does not exist has no ports.
func (n *Namespace) eachPort(bridge string, f func(bridgePort) bool) error {
	br, err := n.link(bridge)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for {
		err := n.listPorts(br.Attrs().Index, f)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
}

// listPorts is one pass of eachPort, on a socket of its own, which is closed with
// the rest of the listing unread.
func (n *Namespace) listPorts(bridge int, f func(bridgePort) bool) error {
	socket, err := nl.GetNetlinkSocketAt(n.handle, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer socket.Close()
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge))))
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(extSkipStats)))
	if err := socket.Send(req); err != nil {
		return fmt.Errorf("list ports: %w", err)
	}
	for {
		messages, _, err := socket.Receive()
		if err != nil {
			return fmt.Errorf("list ports: %w", err)
		}
		for _, m := range messages {
			switch {
			case m.Header.Flags&unix.NLM_F_DUMP_INTR != 0:
				return netlink.ErrDumpInterrupted
			case m.Header.Type == unix.NLMSG_DONE:
				return nil
			case m.Header.Type == unix.NLMSG_ERROR:
				return fmt.Errorf("list ports: %w", syscall.Errno(-int32(nl.NativeEndian().Uint32(m.Data))))
			}
			p, err := parsePort(m.Data)
			if err != nil {
				return err
			}
			if p.master == bridge && !f(p) { // kernels before 4.4 list all links
				return nil
			}
		}
	}
}

// HasPort says whether an attachment has its port, finished or not.
func (n *Namespace) HasPort(a Attachment) bool {
	_, err := n.link(a.Port())
	return err == nil
}

// port looks up one link, as a port. It asks for what link does not tell.
func (n *Namespace) port(name string) (p bridgePort, err error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	if err := n.use(req, unix.NETLINK_ROUTE); err != nil {
		return p, err
	}
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(extSkipStats)))
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil || len(messages) != 1 {
		return p, fmt.Errorf("look up port %s: %w", name, err)
	}
	return parsePort(messages[0])
}

// parsePort reads an RTM_NEWLINK message.
func parsePort(m []byte) (p bridgePort, err error) {
	header := nl.DeserializeIfInfomsg(m)
	p.up = header.Flags&unix.IFF_UP != 0
	attrs, err := nl.ParseRouteAttr(m[header.Len():])
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFLA_IFNAME:
			p.name = text(a.Value, len(a.Value))
		case unix.IFLA_IFALIAS:
			p.alias = text(a.Value, len(a.Value))
		case unix.IFLA_MASTER:
			p.master = int(nl.NativeEndian().Uint32(a.Value))
		case unix.IFLA_MTU:
			p.mtu = int(nl.NativeEndian().Uint32(a.Value))
		case unix.IFLA_LINKINFO:
			err = errors.Join(err, p.parseInfo(a.Value))
		}
	}
	if err != nil {
		return p, fmt.Errorf("read link message: %w", err)
	}
	return p, nil
}

// parseInfo reads the bridge's part of IFLA_LINKINFO.
func (p *bridgePort) parseInfo(info []byte) error {
	parts, err := nl.ParseRouteAttrAsMap(info)
	if err != nil || string(bytes.TrimRight(parts[nl.IFLA_INFO_SLAVE_KIND].Value, "\x00")) != "bridge" {
		return err
	}
	settings, err := nl.ParseRouteAttrAsMap(parts[nl.IFLA_INFO_SLAVE_DATA].Value)
	p.forwarding = bytes.Equal(settings[brportState].Value, []byte{stateForwarding})
	p.hairpin = bytes.Equal(settings[brportMode].Value, []byte{1})
	return err
}

// Collect deletes the ports of a network's attachments that are not in valid, on
// the bridge given, and with the last of all the network. It goes on after errors.
func (n *Namespace) Collect(network, bridge string, valid []Attachment) error {
	keep := map[string]bool{}
	for _, a := range valid {
		keep[a.Port()] = true
	}
	var stale []string
	err := n.eachPort(bridge, func(p bridgePort) bool {
		a, known := ParseAttachment(p.alias)
		if p.ours() && !keep[p.name] && (!known || a.Network == network) {
			stale = append(stale, p.name)
		}
		return true
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range stale {
		errs = append(errs, n.deleteLink(name))
	}
	return errors.Join(append(errs, n.ReleaseNetwork(bridge))...)
}
