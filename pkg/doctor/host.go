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
	where := "no bridge"
	if p.Bridge != "" {
		where = "bridge " + p.Bridge
	}
	switch {
	case !found:
		w.sad(station, "remove the container and make it again", "%s is not there", e.Port)
	case e.Bridge == "":
		w.sad(station, command("ip link set %s master BRIDGE up", e.Port)+", with the bridge of its network",
			"%s is on %s, and neither a record nor a configuration of its network says where it belongs", e.Port, where)
		w.isRoot()
	case p.Bridge != e.Bridge && w.hostLink(e.Bridge) == nil:
		w.note(station, "%s is on %s; bridge %s, where it belongs, is not there", e.Port, where, e.Bridge)
	case p.Bridge != e.Bridge:
		w.bad(station, e.rejoin(), "%s is on %s; it belongs on %s", e.Port, where, e.Bridge)
		w.isRoot()
	case !p.Up:
		w.bad(station, command("ip link set %s up", e.Port), "%s is down", e.Port)
		w.isRoot()
	case !p.Forwarding:
		w.note(station, "bridge %s does not forward what comes by %s: its other end is down, or STP is at work", e.Bridge, e.Port)
	default:
		w.good(station, "%s on bridge %s forwards", e.Port, e.Bridge)
	}
}

// rejoin is a command that puts the port back on its bridge. A port that leaves its bridge loses its
// settings there; with a record, repair knows them.
func (e *End) rejoin() string {
	if e.Drift != nil {
		return "bvctl repair"
	}
	return command("ip link set %s master %s up", e.Port, e.Bridge)
}

// hostLink returns a link of the host, nil if there is none of the name.
func (d *Doctor) hostLink(name string) (link netlink.Link) {
	_ = d.Host.Do(func() (err error) { link, err = netlink.LinkByName(name); return err }) // as documented
	return link
}

// bridge looks at a container's bridge.
func (w *walk) bridge(e *End) {
	if e.Bridge == "" {
		return // said of the port
	}
	station := "bridge " + e.Bridge
	link := w.hostLink(e.Bridge)
	off := "ipv6/conf/" + e.Bridge + "/disable_ipv6"
	switch {
	case link == nil:
		w.noBridge(station, e)
		w.isRoot()
		return
	case link.Attrs().Flags&net.FlagUp == 0:
		w.bad(station, command("ip link set %s up", e.Bridge), "it is down")
		w.isRoot()
		return
	case !w.from.IsValid():
		w.good(station, "up")
		return
	case w.from.Is6() && (w.local || w.routed) && sysctl(w.Host.Namespace, off) == "1":
		w.bad(station, setSysctl(off, "0")+"; bvctl repair", "IPv6 is switched off on it: net/%s is 1", off)
		w.isRoot()
		return
	}
	w.filtered = sysctl(w.Host.Namespace, "bridge/bridge-nf-call-"+map[bool]string{true: "iptables", false: "ip6tables"}[w.from.Is4()]) == "1"
	if w.filtered {
		w.good(station, "up; iptables sees bridged packets too (br_netfilter)")
	} else {
		w.good(station, "up; bridged packets go past iptables")
	}
}

// noBridge says what has become of a bridge that does not exist, and what restores it.
func (w *walk) noBridge(station string, e *End) {
	now := w.ports[e.Port].Bridge
	rename := command("ip link set %[1]s down; ip link set %[1]s name %[2]s; ip link set %[2]s up", now, e.Bridge) + "; bvctl repair"
	again := "bvctl repair"
	if e.Drift == nil {
		again += "; " + e.rejoin()
	}
	switch renamed, err := w.Host.RenamedTo(e.Bridge); {
	case now == "":
		w.bad(station, again, "it is not there")
	case err == nil && renamed == now:
		w.bad(station, rename, "it is not there; port %s is on bridge %s: %s was renamed to %[2]s", e.Port, now, e.Bridge)
	default:
		w.sad(station, rename+"; or, if "+e.Bridge+" was deleted: "+again, "it is not there; port %s is on bridge %s: was %s renamed?", e.Port, now, e.Bridge)
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
