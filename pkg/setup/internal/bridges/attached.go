package bridges

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// AttachedInterface is a container's interface that one of our veth pairs attaches to a CNI
// network. Addresses are the present addresses of this interface, without link-local addresses.
type AttachedInterface struct {
	plan.Attachment
	Addresses []netip.Prefix
}

// AttachedInterfaces returns the interfaces of containers that our veth pairs attach to a CNI
// network, including interfaces that ADD has not finished. It does not need the paths of the
// containers' namespaces: from Linux 4.20 on, the kernel lists the addresses in the namespace of a
// veth's peer. On older kernels, the result has no addresses. AttachedInterfaces lists all links,
// and sends one more request for each interface.
func AttachedInterfaces(n *netns.Namespace, network string) (all []AttachedInterface, err error) {
	links, err := allLinks(n)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		a, ours := plan.ParseAttachment(l.Alias)
		if !ours || a.Network != network || len(l.PeerNamespace) == 0 {
			continue
		}
		addresses, err := peerAddresses(n, l)
		if err != nil {
			return nil, err
		}
		all = append(all, AttachedInterface{a, addresses})
	}
	return all, nil
}

// peerAddresses returns the addresses of the other end of veth l. If the veth pair was deleted
// meanwhile, or if the kernel is deleting the namespace of the other end, it returns no addresses.
func peerAddresses(n *netns.Namespace, l rtnl.Link) (all []netip.Prefix, err error) {
	messages, err := netns.Dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		msg := nl.NewIfAddrmsg(unix.AF_UNSPEC)
		msg.Index = uint32(l.Peer)
		req.AddData(msg)
		req.AddData(nl.NewRtAttr(rtnl.TargetNetNSID, l.PeerNamespace))
		return n.Ask(unix.NETLINK_ROUTE, req)
	})
	if errors.Is(err, unix.EINVAL) { // the ID of a namespace ends some milliseconds before the links in the namespace
		return nil, nil
	}
	if err != nil {
		if _, gone := rtnl.ByIndex(n, l.Index); rtnl.Absent(gone) {
			return nil, nil
		}
		return nil, fmt.Errorf("list addresses behind port %s: %w", l.Name, err)
	}
	for _, m := range messages {
		header := nl.DeserializeIfAddrmsg(m)
		attrs := netns.Attrs(m[header.Len():])
		a, ok := netip.AddrFromSlice(rtnl.LocalAddress(attrs))
		// A kernel before 4.20 ignores the attribute for the namespace and lists the addresses in
		// the host's namespace. Such an answer has no IFA_TARGET_NETNSID.
		if ok && int(header.Index) == l.Peer && attrs.Get(rtnl.TargetNetNSID) != nil && !a.IsLinkLocalUnicast() {
			all = append(all, netip.PrefixFrom(a, int(header.Prefixlen)))
		}
	}
	return all, nil
}
