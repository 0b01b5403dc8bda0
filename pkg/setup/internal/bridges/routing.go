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

// MissingForwarding returns a difference for each forwarding sysctl that is off: conf/all, and the sysctl
// of the link that has the gateway addresses. It checks both, because the link's sysctl can be off while
// conf/all is on.
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
		if l.Index == 0 { // the link does not exist yet; a new link gets the default
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

// MissingAcceptRA returns a difference for each of our links (bridge and VLAN link) whose sysctl
// accept_ra is not 0. With another value, a container could become the host's router by sending a router
// advertisement.
//
// A read-only /proc/sys is no error: a host that forwards IPv6 accepts router advertisements only if
// accept_ra is 2, and this is not the default.
func MissingAcceptRA(n *netns.Namespace, net *plan.Network, links []rtnl.Link) (missing []plan.Difference) {
	for i, name := range net.Links() {
		if l := links[i]; l.Index != 0 && (!l.AcceptsRA || !l.Own) || !n.HasIPv6() {
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

// enableForwarding switches forwarding on for all links. With IPv6 forwarding, a link ignores router
// advertisements unless its accept_ra is 2 (Documentation/networking/ip-sysctl.rst, "accept_ra"). The
// host could then lose its default route. Therefore enableForwarding first changes accept_ra from 1 to 2
// on each link. It does not change the default for new links.
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

// The values for the parameter "which" of the function forwards.
const (
	confAll     = ^uint32(0) // NETCONFA_IFINDEX_ALL in linux/netconf.h
	confDefault = ^uint32(1) // NETCONFA_IFINDEX_DEFAULT
)

// forwards reports whether the sysctl forwarding of a family is on: for all links (confAll), or by
// default for new links (confDefault). It reads the sysctl by netlink, because opening a file below
// /proc/sys/net is slow: the kernel compares the entries of all namespaces (proc_sys_compare in
// fs/proc/proc_sysctl.c), which takes a millisecond with a thousand containers.
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
