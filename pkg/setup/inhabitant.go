package setup

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	linkNetNSID   = 37 // IFLA_LINK_NETNSID in linux/if_link.h: in which namespace a veth's other end is
	targetNetNSID = 10 // IFA_TARGET_NETNSID in linux/if_addr.h: in which namespace addresses are (Linux 4.20)
)

// Inhabitant is a container's interface that is attached to a network, with the addresses that
// it has now, without the link-local ones of IPv6.
type Inhabitant struct {
	Attachment
	Addresses []netip.Prefix
}

// Inhabitants lists what is attached to a network by veth pairs of ours, finished or not. The
// kernel tells the addresses at the other end of each pair: nobody needs to know where the
// containers' namespaces are. Before Linux 4.20 it does not, and there are none. It takes a
// listing of all links, and one message for each attachment.
func (n *Namespace) Inhabitants(network string) (all []Inhabitant, err error) {
	links, err := n.allLinks()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		a, ours := ParseAttachment(l.alias)
		if !ours || a.Network != network || len(l.peerNamespace) == 0 {
			continue
		}
		addresses, err := n.peerAddresses(l)
		if err != nil {
			return nil, err
		}
		all = append(all, Inhabitant{a, addresses})
	}
	return all, nil
}

// peerAddresses lists the addresses at the other end of a veth pair, none where the pair has
// gone meanwhile.
func (n *Namespace) peerAddresses(l link) (all []netip.Prefix, err error) {
	messages, err := dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		msg := nl.NewIfAddrmsg(unix.AF_UNSPEC)
		msg.Index = uint32(l.peer)
		req.AddData(msg)
		req.AddData(nl.NewRtAttr(targetNetNSID, l.peerNamespace))
		return n.ask(unix.NETLINK_ROUTE, req)
	})
	if err != nil {
		if _, gone := n.linkAt(l.index); absent(gone) {
			return nil, nil
		}
		return nil, fmt.Errorf("list addresses behind port %s: %w", l.name, err)
	}
	for _, m := range messages {
		header := nl.DeserializeIfAddrmsg(m)
		is := attrs(m[header.Len():])
		a, ok := netip.AddrFromSlice(localAddress(is))
		// An older kernel lists the host's own addresses.
		if ok && int(header.Index) == l.peer && is.get(targetNetNSID) != nil && !a.IsLinkLocalUnicast() {
			all = append(all, netip.PrefixFrom(a, int(header.Prefixlen)))
		}
	}
	return all, nil
}
