package doctor

import (
	"cmp"
	"net"
	"strconv"

	"github.com/vishvananda/netlink"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// port looks at the host end.
func (w *walk) port(e *End) {
	station := "port of " + e.Name
	p, found := w.ports[e.Port]
	switch {
	case !found:
		w.sad(station, "remove the container and make it again", "%s is not there", e.Port)
	case p.Bridge != e.Bridge:
		w.bad(station, command("ip link set %s master %s", e.Port, e.Bridge), "%s is on %s instead of %s", e.Port, cmp.Or(p.Bridge, "no bridge"), e.Bridge)
	case !p.Up:
		w.bad(station, command("ip link set %s up", e.Port), "%s is down", e.Port)
	case !p.Forwarding:
		w.note(station, "bridge %s does not forward what comes by %s: its other end is down, or STP is at work", e.Bridge, e.Port)
	default:
		w.good(station, "%s on bridge %s forwards", e.Port, e.Bridge)
	}
}

// bridge looks at a container's bridge.
func (w *walk) bridge(e *End) {
	station := "bridge " + e.Bridge
	var link netlink.Link
	err := w.Host.Do(func() (err error) { link, err = netlink.LinkByName(e.Bridge); return err })
	off := "ipv6/conf/" + e.Bridge + "/disable_ipv6"
	switch {
	case err != nil:
		w.sad(station, "remove the containers and make them again", "it is not there")
		return
	case link.Attrs().Flags&net.FlagUp == 0:
		w.bad(station, command("ip link set %s up", e.Bridge), "it is down")
		return
	case !w.from.IsValid():
		w.good(station, "up")
		return
	case w.from.Is6() && (w.local || w.routed) && sysctl(w.Host.Namespace, off) == "1":
		w.bad(station, setSysctl(off, "0")+"; bvctl repair", "IPv6 is switched off on it: net/%s is 1", off)
		w.Stations[len(w.Stations)-1].root = true
		return
	}
	w.filtered = sysctl(w.Host.Namespace, "bridge/bridge-nf-call-"+map[bool]string{true: "iptables", false: "ip6tables"}[w.from.Is4()]) == "1"
	if w.filtered {
		w.good(station, "up; iptables sees bridged packets too (br_netfilter)")
	} else {
		w.good(station, "up; bridged packets go past iptables")
	}
}

// chains lists those that a forwarded packet has to pass, in their order. What they do with
// ours is proved later.
func (w *walk) chains() {
	chains, err := w.Host.ForwardChains(familyOf(w.from))
	if err != nil {
		w.note("forward chains", "%v", err)
	}
	for _, c := range chains {
		if c.Owner == setup.OwnerUs {
			continue
		}
		what := "priority " + strconv.Itoa(int(c.Priority)) + ", " + cmp.Or(string(c.Owner), "not one that we know")
		if c.Denies != "" {
			what += ", " + c.Denies
		}
		if station := "chain " + c.String(); c.Owner == setup.OwnerUnknown && c.Denies != "" {
			w.note(station, "%s", what)
		} else {
			w.good(station, "%s", what)
		}
	}
}

// conntrack looks whether there is room for another connection.
func (w *walk) conntrack() {
	limit := sysctl(w.Host.Namespace, "netfilter/nf_conntrack_max")
	if limit == "" {
		return // there is no conntrack
	}
	used, _ := strconv.Atoi(sysctl(w.Host.Namespace, "netfilter/nf_conntrack_count"))
	if most, _ := strconv.Atoi(limit); most > 0 && used >= most { // 0 is no limit
		w.bad("conntrack", setSysctl("netfilter/nf_conntrack_max", strconv.Itoa(2*most)), "its table is full, with %d connections: new ones are dropped", used)
	} else {
		w.good("conntrack", "%d of %d connections", used, most)
	}
}
