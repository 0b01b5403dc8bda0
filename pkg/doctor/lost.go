package doctor

import (
	"fmt"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/probe"
)

// addLost adds how far a packet came that no rule dropped and nobody answered. failure is the error of sending
// it.
func (p *proof) addLost(failure error) {
	what, advice := p.lastSeen(failure)
	host := p.Host.Namespace
	left := failure == nil && p.Beyond() && p.Routed && p.seen.Seen(host, probe.Request) && !p.seen.Seen(host, probe.Reply)
	switch {
	case p.Obstacle() != nil, left && p.AddNoNodeRoute(nil):
		p.Note("our packet", "no answer: %s", what)
	case left && !p.seen.Translated(host):
		p.Advise("way back", fmt.Sprintf(`set "ipMasq" for the network, or give %s a route back`, p.To),
			"the packet leaves the host as from %s, and whoever gets it needs a route back to that address", p.From)
	default:
		p.Advise("our packet", advice, "%s", what)
	}
}

// lastSeen returns where the packet, or its answer, was seen last, and where to look.
func (p *proof) lastSeen(failure error) (what, advice string) {
	a, b := p.A.Name, p.B.Name
	seen, host := p.seen, p.Host.Namespace
	beyondPort := "look at what the bridge knows (bridge fdb show br " + p.A.Bridge + "), at who the host takes for whom (ip neigh), and at queues and filters of the port (tc qdisc; tc filter): dev "
	switch unresolved := p.Unresolved(); {
	case failure != nil:
		return "it did not leave " + a + ": " + failure.Error(), "look at its routes and at rules of its own: " + p.A.Command("ip rule")
	case !seen.Seen(p.A.Namespace, probe.Request):
		return "it did not leave " + a, "look at rules of its own: " + p.A.Command("iptables-legacy-save")
	case p.Own:
		return "it is its own, and was not answered", "look at lo: " + p.A.Command("ip addr show dev lo")
	case !seen.Seen(host, probe.Request) && unresolved.IsValid():
		return fmt.Sprintf("nobody answered when %s asked who has %s", a, unresolved), "is that address up, and on bridge " + p.A.Bridge + "? Look at queues and at filters too: " + p.A.Command("ip neigh") + "; tc qdisc; tc filter; XDP, of either end"
	case !seen.Seen(host, probe.Request):
		return "it left " + a + ", and did not reach port " + p.A.Port, "look at who " + a + " takes for whom, at queues and at filters: " + p.A.Command("ip neigh") + "; tc qdisc; tc filter; XDP, of either end"
	case p.Local && !seen.Seen(host, probe.Reply):
		return "it reached the host, which did not answer", "look at rules of iptables-legacy, at ip rule, and at who the host takes for whom: ip neigh show dev " + p.A.Bridge
	case p.Beyond() && !seen.Seen(host, probe.Reply):
		return "it left the host, and nobody answered", "look beyond this host: is that address up, and does it answer pings?"
	case p.Local || p.Beyond():
		return "the answer came to the host, and did not reach " + a, beyondPort + p.A.Port
	case !seen.Seen(p.B.Namespace, probe.Request):
		return "it reached the host, and did not reach " + b, beyondPort + p.B.Port
	case !seen.Seen(p.B.Namespace, probe.Reply):
		return "it reached " + b + ", which did not answer", "look at rules of its own, and at its routes: " + p.B.Command("ip route get %s", p.From)
	case !seen.Seen(host, probe.Reply):
		return "the answer left " + b + ", and did not reach port " + p.B.Port, "look at who " + b + " takes for whom, at queues and at filters: " + p.B.Command("ip neigh") + "; tc qdisc; tc filter; XDP, of either end"
	}
	return "the answer came to the host, and did not reach " + a, beyondPort + p.A.Port
}
