package setup

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/files"
)

// forwardingLacks looks at the sysctls that let the host route for containers: that of all
// links, and that of the one that the network is routed by, which may be another by default.
func (n *Namespace) forwardingLacks(net *Network, l link) (lacks []lack, err error) {
	for family, key := range map[int]string{unix.AF_INET: sysctlForward4, unix.AF_INET6: sysctlForward6} {
		if !slices.ContainsFunc(net.Gateways, func(g netip.Prefix) bool { return familyOf(g.Addr()) == family }) {
			continue
		}
		on, err := n.forwards(family, allLinks)
		if err != nil {
			return nil, fmt.Errorf("ask the kernel for sysctl net/%s: %w", key, err)
		}
		if !on {
			lacks = append(lacks, lack{what: aSysctl + key + "=1", mend: func() error { return n.enableForwarding(key) }})
			continue
		}
		on = family == unix.AF_INET && l.forwards4 || family == unix.AF_INET6 && l.forwards6
		if l.index == 0 { // still to be made
			if on, err = n.forwards(family, newLinks); err != nil {
				return nil, fmt.Errorf("ask the kernel for the default of sysctl net/%s: %w", key, err)
			}
		}
		if !on {
			own := map[int]string{unix.AF_INET: "ipv4", unix.AF_INET6: "ipv6"}[family] + "/conf/" + net.RoutedBy() + "/forwarding"
			lacks = append(lacks, lack{what: aSysctl + own + "=1", mend: func() error { return n.setSysctl(own, "1") }})
		}
	}
	return lacks, nil
}

// routerLacks looks whether a container could make itself the host's router, by a router
// advertisement on a bridge or VLAN link of ours. There is no router for the host on these.
// Where /proc/sys is read-only there is nothing to be done about it, and no network needs it: a
// host that routes IPv6 takes no advertisements unless accept_ra is 2.
func (n *Namespace) routerLacks(net *Network, links []link) (lacks []lack) {
	for i, name := range net.links() {
		if l := links[i]; l.index != 0 && (l.alias != owner || !l.acceptsRA) || !n.HasIPv6() {
			continue
		}
		key := "ipv6/conf/" + name + "/accept_ra"
		if n.fixed("ipv6/conf/default/accept_ra") {
			continue
		}
		lacks = append(lacks, lack{what: aSysctl + key + "=0", mend: func() error { return n.setSysctlIfAny(key, "0") }, newer: true})
	}
	return lacks
}

// enableForwarding lets the host route. An interface that takes its default route
// from router advertisements would lose it with IPv6 forwarding on, unless its
// accept_ra is 2 (Documentation/networking/ip-sysctl.rst, "accept_ra"). What links that are
// yet to come do is left alone.
func (n *Namespace) enableForwarding(key string) error {
	if key == sysctlForward6 && !n.fixed(key) {
		err := n.Do(func() error {
			all, err := filepath.Glob("/proc/sys/net/ipv6/conf/*/accept_ra")
			for _, path := range all {
				if link := filepath.Base(filepath.Dir(path)); link == "all" || link == "default" {
					continue
				}
				if value, readErr := files.Read(path); readErr == nil && string(value) == "1\n" {
					err = errors.Join(err, files.Write(path, "2"))
				}
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("keep router advertisements with IPv6 forwarding: %w", err)
		}
	}
	return n.setSysctl(key, "1")
}

// What forwards tells of, besides one link.
const (
	allLinks = ^uint32(0) // NETCONFA_IFINDEX_ALL in linux/netconf.h
	newLinks = ^uint32(1) // NETCONFA_IFINDEX_DEFAULT
)

// forwards says whether the namespace routes packets of a family: what sysctlForward4 and
// sysctlForward6 tell, or the default of new links, by netlink. For a path below /proc/sys/net
// the kernel looks at those of all namespaces, one after the other (proc_sys_compare in
// fs/proc/proc_sysctl.c), and there is one of IPv6 for each container: with a thousand that is
// a millisecond.
func (n *Namespace) forwards(family int, which uint32) (bool, error) {
	const (
		index      = 1 // NETCONFA_IFINDEX in linux/netconf.h
		forwarding = 2 // NETCONFA_FORWARDING
	)
	req := nl.NewNetlinkRequest(unix.RTM_GETNETCONF, 0)
	req.AddData(&nl.RtGenMsg{RtGenmsg: unix.RtGenmsg{Family: uint8(family)}})
	req.AddData(nl.NewRtAttr(index, nl.Uint32Attr(which)))
	answers, err := n.ask(unix.NETLINK_ROUTE, req)
	if err == nil && (len(answers) != 1 || len(answers[0]) < 4) {
		err = fmt.Errorf("got %d answers", len(answers))
	}
	if err != nil {
		return false, err
	}
	return attrs(answers[0][4:]).integer(forwarding) != 0, nil
}
