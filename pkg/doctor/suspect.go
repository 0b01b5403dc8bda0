package doctor

import (
	"bytes"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// suspects looks at what makes packets vanish, or keeps answers from being sent, without a
// word to anybody. It matters only where a packet was lost.
func (w *walk) suspects() {
	bridged := w.local || w.routed
	if bridged {
		w.speaks(w.Host.Namespace, w.a.Bridge, nil)
	}
	for _, e := range w.containers() {
		w.speaks(e.Namespace, e.Interface, e)
		if bridged {
			w.remembered(e)
		}
		w.learnt(e)
		w.queue(e.Namespace, e.Interface, e)
		w.queue(w.Host.Namespace, e.Port, nil)
	}
	switch {
	case w.own:
		w.echoes(w.a.Namespace, w.a)
	case w.b.Namespace != nil:
		w.echoes(w.b.Namespace, w.b)
	case w.local:
		w.echoes(w.Host.Namespace, nil)
	}
}

// on is a command for a container, or for the host where there is none.
func on(e *End, format string, words ...any) string {
	if e == nil {
		return command(format, words...)
	}
	return e.in(format, words...)
}

func nameOf(e *End) string {
	if e == nil {
		return "the host"
	}
	return e.Name
}

// speaks looks whether a link answers those who ask for its MAC.
func (w *walk) speaks(ns *setup.Namespace, link string, e *End) {
	station := "neighbours of " + nameOf(e)
	var l netlink.Link
	if ns.Do(func() (err error) { l, err = netlink.LinkByName(link); return err }) != nil {
		return // said already
	}
	if l.Attrs().RawFlags&unix.IFF_NOARP != 0 {
		w.bad(station, on(e, "ip link set %s arp on", link), "%s neither asks for MACs nor tells its own (NOARP)", link)
	}
	for _, key := range []string{"all", link} {
		key = "ipv4/conf/" + key + "/arp_ignore"
		if value := sysctl(ns, key); w.from.Is4() && value >= "3" && len(value) == 1 { // what less ignores does not matter here
			w.bad(station, on(e, "sysctl -w %s", setting(key, "0")), "%s does not tell its MAC: net/%s is %s", link, key, value)
		}
	}
	if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
		w.note("filters of "+nameOf(e), "a program of XDP is attached to %s", link)
	}
}

// remembered compares what the host believes to be a container's MAC with what it is.
func (w *walk) remembered(e *End) {
	given, ok := e.Address(w.from.Is4())
	if !ok {
		return
	}
	_ = w.Host.Do(func() error { // without it nothing is known
		all, err := dump(here.NeighList, 0, familyOf(w.from))
		if n, want := wrong(all, given.Addr(), w.macOf(given.Addr())); n != nil {
			w.bad("neighbour of the host", command("ip neigh del %s dev %s", given.Addr(), e.Bridge), "it takes %s for %s, which has %s", n.HardwareAddr, given.Addr(), want)
		}
		return err
	})
}

// learnt looks where the bridge believes a container to be, and whether it floods the port
// if it does not know.
func (w *walk) learnt(e *End) {
	station := "bridge " + e.Bridge + " about " + e.Name
	var mac net.HardwareAddr
	_ = e.Namespace.Do(func() error { // said already
		l, err := netlink.LinkByName(e.Interface)
		if err == nil {
			mac = l.Attrs().HardwareAddr
		}
		return err
	})
	_ = w.Host.Do(func() error { // said already
		bridge, err := netlink.LinkByName(e.Bridge)
		if err != nil || mac == nil {
			return err
		}
		port, err := netlink.LinkByName(e.Port)
		if err != nil {
			return err
		}
		all, err := dump(here.NeighList, 0, unix.AF_BRIDGE)
		here := func(n netlink.Neigh) bool {
			return n.LinkIndex == port.Attrs().Index && bytes.Equal(n.HardwareAddr, mac)
		}
		for _, n := range all {
			if bytes.Equal(n.HardwareAddr, mac) && n.MasterIndex == bridge.Attrs().Index && !here(n) {
				other, err := netlink.LinkByIndex(n.LinkIndex)
				if err != nil {
					continue // it is gone
				}
				w.bad(station, command("bridge fdb del %s dev %s master", mac, other.Attrs().Name), "it sends what is for %s by %s instead of %s", mac, other.Attrs().Name, e.Port)
			}
		}
		if p, err := netlink.LinkGetProtinfo(port); err == nil && !p.Flood && !slices.ContainsFunc(all, here) {
			w.bad(station, command("bridge link set dev %s flood on learning on", e.Port), "it knows no MAC behind %s, and does not flood it: nothing is sent there", e.Port)
		}
		return err
	})
}

// common are kinds of queues that every link may have.
var common = []string{"noqueue", "pfifo_fast", "fq_codel", "fq", "mq"}

// queue looks for queues and filters of a link that may drop packets.
func (w *walk) queue(ns *setup.Namespace, link string, e *End) {
	_ = ns.Do(func() error { // said already
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		all, err := netlink.QdiscList(l)
		for _, q := range all {
			if kind := q.Type(); !slices.Contains(common, kind) {
				w.note("queue of "+nameOf(e), "%s has one of kind %s, which may delay packets or drop them: %s", link, kind, on(e, "tc -s qdisc show dev %s", link))
			}
		}
		return err
	})
}

// echoes looks whether pings are answered at all.
func (w *walk) echoes(ns *setup.Namespace, e *End) {
	key := "ipv4/icmp_echo_ignore_all"
	if w.to.Is6() {
		key = "ipv6/icmp/echo_ignore_all"
	}
	if sysctl(ns, key) == "1" {
		w.bad("our packet", on(e, "sysctl -w %s", setting(key, "0")), "%s answers no ping; it may be reached all the same", nameOf(e))
	}
}
