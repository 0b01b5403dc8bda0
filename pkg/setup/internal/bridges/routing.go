package bridges

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/files"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// MissingForwarding looks at the sysctls that let the host route for containers: that of all
// links, and that of the one that the network is routed by, which may be another by default.
func MissingForwarding(n *netns.Namespace, net *plan.Network, l rtnl.Link) (missing []plan.Difference, err error) {
	for family, key := range map[int]string{unix.AF_INET: netns.SysctlForward4, unix.AF_INET6: netns.SysctlForward6} {
		if !slices.ContainsFunc(net.Gateways, func(g netip.Prefix) bool { return netns.FamilyOf(g.Addr()) == family }) {
			continue
		}
		on, err := forwards(n, family, confAll)
		if err != nil {
			return nil, fmt.Errorf("ask the kernel for sysctl net/%s: %w", key, err)
		}
		if !on {
			missing = append(missing, plan.SysctlDifference(key, "1", func() error { return enableForwarding(n, key) }))
			continue
		}
		on = family == unix.AF_INET && l.Forwards4 || family == unix.AF_INET6 && l.Forwards6
		if l.Index == 0 { // still to be made
			if on, err = forwards(n, family, confDefault); err != nil {
				return nil, fmt.Errorf("ask the kernel for the default of sysctl net/%s: %w", key, err)
			}
		}
		if !on {
			own := map[int]string{unix.AF_INET: "ipv4", unix.AF_INET6: "ipv6"}[family] + "/conf/" + net.RoutedBy() + "/forwarding"
			missing = append(missing, plan.SysctlDifference(own, "1", func() error { return n.SetSysctl(own, "1") }))
		}
	}
	return missing, nil
}

// MissingAcceptRA looks whether a container could make itself the host's router, by a router
// advertisement on a bridge or VLAN link of ours. There is no router for the host on these.
// Where /proc/sys is read-only there is nothing to be done about it, and no network needs it: a
// host that routes IPv6 takes no advertisements unless accept_ra is 2.
func MissingAcceptRA(n *netns.Namespace, net *plan.Network, links []rtnl.Link) (missing []plan.Difference) {
	for i, name := range net.Links() {
		if l := links[i]; l.Index != 0 && (l.Alias != plan.Owner || !l.AcceptsRA) || !n.HasIPv6() {
			continue
		}
		key := "ipv6/conf/" + name + "/accept_ra"
		if n.ReadOnlySysctl("ipv6/conf/default/accept_ra") {
			continue
		}
		off := plan.SysctlDifference(key, "0", func() error { return n.SetSysctlIfAny(key, "0") })
		off.Newer = true
		missing = append(missing, off)
	}
	return missing
}

// enableForwarding lets the host route. An interface that takes its default route
// from router advertisements would lose it with IPv6 forwarding on, unless its
// accept_ra is 2 (Documentation/networking/ip-sysctl.rst, "accept_ra"). What links that are
// yet to come do is left alone.
func enableForwarding(n *netns.Namespace, key string) error {
	if key == netns.SysctlForward6 && !n.ReadOnlySysctl(key) {
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
	return n.SetSysctl(key, "1")
}

// What forwards tells of, besides one link.
const (
	confAll     = ^uint32(0) // NETCONFA_IFINDEX_ALL in linux/netconf.h
	confDefault = ^uint32(1) // NETCONFA_IFINDEX_DEFAULT
)

// forwards says whether the namespace routes packets of a family: what sysctlForward4 and
// sysctlForward6 tell, or the default of new links, by netlink. For a path below /proc/sys/net
// the kernel looks at those of all namespaces, one after the other (proc_sys_compare in
// fs/proc/proc_sysctl.c), and there is one of IPv6 for each container: with a thousand that is
// a millisecond.
func forwards(n *netns.Namespace, family int, which uint32) (bool, error) {
	const (
		index      = 1 // NETCONFA_IFINDEX in linux/netconf.h
		forwarding = 2 // NETCONFA_FORWARDING
	)
	req := nl.NewNetlinkRequest(unix.RTM_GETNETCONF, 0)
	req.AddData(&nl.RtGenMsg{RtGenmsg: unix.RtGenmsg{Family: uint8(family)}})
	req.AddData(nl.NewRtAttr(index, nl.Uint32Attr(which)))
	answers, err := n.Ask(unix.NETLINK_ROUTE, req)
	if err == nil && (len(answers) != 1 || len(answers[0]) < 4) {
		err = fmt.Errorf("got %d answers", len(answers))
	}
	if err != nil {
		return false, err
	}
	return netns.Attrs(answers[0][4:]).Integer(forwarding) != 0, nil
}
