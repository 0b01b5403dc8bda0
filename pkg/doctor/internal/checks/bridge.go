package checks

import (
	"net"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
)

// CheckBridge checks a container's bridge.
func (p *Path) CheckBridge(e *End) {
	if e.Bridge == "" {
		return // CheckPort has reported this
	}
	station := "bridge " + e.Bridge
	link, err := p.Link(p.Host.Namespace, e.Bridge)
	off := "ipv6/conf/" + e.Bridge + "/disable_ipv6"
	switch {
	case err != nil:
		p.addNoBridge(station, e)
		return
	case link.Attrs().Flags&net.FlagUp == 0:
		p.Bad(station, report.Command("ip link set %s up", e.Bridge), "the bridge is down").Root = true
		return
	case !p.From.IsValid():
		p.Good(station, "up")
		return
	case p.From.Is6() && (p.Local || p.Routed) && kernel.Sysctl(p.Host.Namespace, off) == "1":
		p.Bad(station, report.SetSysctl(off, "0")+"; bvctl repair", "IPv6 is off on the bridge (net/%s is 1)", off).Root = true
		return
	}
	p.Filtered = p.forwarding[kernel.FamilyOf(p.From)].filtered
	if p.Filtered {
		p.Good(station, "up; bridged packets pass iptables (br_netfilter)")
	} else {
		p.Good(station, "up; bridged packets bypass iptables")
	}
}

// hasLink reports whether the host has a link.
func (p *Path) hasLink(name string) bool {
	_, err := p.Link(p.Host.Namespace, name)
	return err == nil
}

// addNoBridge adds a station for a bridge that does not exist. The station has the command that
// restores the bridge. addNoBridge sets the station's field Root, because the missing bridge causes
// all other problems.
func (p *Path) addNoBridge(station string, e *End) {
	now := p.ports[e.Port].Bridge
	rename := report.Command("ip link set %[1]s down; ip link set %[1]s name %[2]s; ip link set %[2]s up", now, e.Bridge) + "; bvctl repair"
	again := "bvctl repair"
	if e.Verify == nil {
		again += "; " + e.rejoinCommand()
	}
	switch renamed, err := p.Host.RenamedTo(e.Bridge); {
	case now == "":
		p.Bad(station, again, "the bridge does not exist").Root = true
	case err == nil && renamed == now:
		p.Bad(station, rename, "the bridge does not exist; it was renamed to %s", now).Root = true
	default:
		p.Advise(station, "if the bridge was renamed to "+now+": "+rename+"; if it was deleted: "+again, "the bridge does not exist; port %s is on bridge %s", e.Port, now).Root = true
	}
}
