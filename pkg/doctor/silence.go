package doctor

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// silence says how far a packet came that no rule has dropped and nobody answered, and what
// may be behind it.
func (w *walk) silence(seen sightings, failure error) {
	w.suspects()
	if gateway := w.unanswered(w.a); w.routed && w.has(w.Host.Namespace, gateway) {
		w.wayBack(gateway, "") // a strict filter of reverse paths drops ARP, too
	}
	what, advice := w.lost(seen, failure)
	switch {
	case w.Obstacle() != nil:
		w.note("our packet", "no answer: %s", what)
	case failure == nil && seen.seen(w.Host.Namespace, request) && !seen.seen(w.Host.Namespace, reply) && w.noNodeRoute(nil):
		w.note("our packet", "no answer: %s", what)
	case w.beyond() && failure == nil && w.routed && seen.seen(w.Host.Namespace, request) && !seen.seen(w.Host.Namespace, reply) && !seen.translated(w.Host.Namespace):
		w.sad("way back", fmt.Sprintf(`set "ipMasq" for the network, or give %s a route back`, w.to),
			"the packet leaves the host as from %s, and whoever gets it needs a route back to that address", w.from)
	default:
		w.sad("our packet", advice, "%s", what)
	}
}

// beyond says whether the target is neither the host's nor one of its
// containers'.
func (w *walk) beyond() bool { return w.b.Namespace == nil && !w.local && !w.own }

// lost is where our packet was seen last, and where to look.
func (w *walk) lost(seen sightings, failure error) (what, advice string) {
	a, b := w.a.Name, w.b.Name
	fromHost := "look at what the bridge knows (bridge fdb show br " + w.a.Bridge + "), at who the host takes for whom (ip neigh), and at queues and filters of the port (tc qdisc; tc filter): dev "
	switch {
	case failure != nil:
		return "it did not leave " + a + ": " + failure.Error(), "look at its routes and at rules of its own: " + w.a.in("ip rule")
	case !seen.seen(w.a.Namespace, request):
		return "it did not leave " + a, "look at rules of its own: " + w.a.in("iptables-legacy-save")
	case w.own:
		return "it is its own, and was not answered", "look at lo: " + w.a.in("ip addr show dev lo")
	case !seen.seen(w.Host.Namespace, request) && w.unanswered(w.a).IsValid():
		return fmt.Sprintf("nobody answered when %s asked who has %s", a, w.unanswered(w.a)), "is that address up, and on bridge " + w.a.Bridge + "? Look at queues and at filters too: " + w.a.in("ip neigh") + "; tc qdisc; tc filter; XDP, of either end"
	case !seen.seen(w.Host.Namespace, request):
		return "it left " + a + ", and did not reach port " + w.a.Port, "look at who " + a + " takes for whom, at queues and at filters: " + w.a.in("ip neigh") + "; tc qdisc; tc filter; XDP, of either end"
	case w.local && !seen.seen(w.Host.Namespace, reply):
		return "it reached the host, which did not answer", "look at rules of iptables-legacy, at ip rule, and at who the host takes for whom: ip neigh show dev " + w.a.Bridge
	case w.beyond() && !seen.seen(w.Host.Namespace, reply):
		return "it left the host, and nobody answered", "look beyond this host: is that address up, and does it answer pings?"
	case w.local || w.beyond():
		return "the answer came to the host, and did not reach " + a, fromHost + w.a.Port
	case !seen.seen(w.b.Namespace, request):
		return "it reached the host, and did not reach " + b, fromHost + w.b.Port
	case !seen.seen(w.b.Namespace, reply):
		return "it reached " + b + ", which did not answer", "look at rules of its own, and at its routes: " + w.b.in("ip route get %s", w.from)
	case !seen.seen(w.Host.Namespace, reply):
		return "the answer left " + b + ", and did not reach port " + w.b.Port, "look at who " + b + " takes for whom, at queues and at filters: " + w.b.in("ip neigh") + "; tc qdisc; tc filter; XDP, of either end"
	}
	return "the answer came to the host, and did not reach " + a, fromHost + w.a.Port
}

// unanswered is an address whose MAC a container has asked for, and nobody told.
func (w *walk) unanswered(e *End) (a netip.Addr) {
	_ = e.Namespace.Do(func() error { // said already
		link, err := netlink.LinkByName(e.Interface)
		if err != nil {
			return err
		}
		all, err := dump(here.NeighList, link.Attrs().Index, familyOf(w.from))
		for _, n := range all {
			if n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE) != 0 {
				a, _ = netip.AddrFromSlice(n.IP)
			}
		}
		return err
	})
	return a.Unmap()
}
