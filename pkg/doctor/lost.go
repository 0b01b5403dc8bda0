package doctor

import (
	"fmt"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/probe"
)

// addLost adds a station for the place where the doctor's packet was lost. It is called if no rule
// dropped the packet. The parameter failure is the error of sending the packet.
func (p *proof) addLost(failure error) {
	what, advice := p.lastSeen(failure)
	host := p.Host.Namespace
	left := failure == nil && p.Beyond() && p.Routed && p.seen.Seen(host, probe.Request) && !p.seen.Seen(host, probe.Reply)
	switch {
	case p.Obstacle() != nil, left && p.AddNoNodeRoute(nil):
		p.Note("test packet", "no answer: %s", what)
	case left && !p.seen.Translated(host):
		p.Advise("return path", fmt.Sprintf(`set "ipMasq": true for the network, or give %s a route to %s`, p.To, p.From),
			"packets leave the host with the source address %s, so %s needs a route back to it", p.From, p.To)
	default:
		p.Advise("test packet", advice, "%s", what)
	}
}

// lastSeen returns where the request or its answer was seen last, and advice about what to check
// next.
func (p *proof) lastSeen(failure error) (what, advice string) {
	a, b := p.A.Name, p.B.Name
	seen, host := p.seen, p.Host.Namespace
	const between = "check qdiscs, tc filters and XDP programs at both ends of the veth pair, and "
	beyondPort := "check the forwarding database (bridge fdb show br " + p.A.Bridge + "), neighbour entries (ip neigh), and qdiscs and tc filters of port "
	switch unresolved := p.Unresolved(); {
	case failure != nil:
		return "the request did not leave " + a + ": " + failure.Error(), "check the routes and rules in the container: " + p.A.Command("ip rule")
	case !seen.Seen(p.A.Namespace, probe.Request):
		return "the request did not leave " + a, "check the rules in the container: " + p.A.Command("iptables-legacy-save")
	case p.Own:
		return "the container does not answer at its own address", "check lo: " + p.A.Command("ip addr show dev lo")
	case !seen.Seen(host, probe.Request) && unresolved.IsValid():
		return fmt.Sprintf("%s gets no answer to its requests for the MAC of %s", a, unresolved), "check that the address is up and on bridge " + p.A.Bridge + "; " + between + p.A.Command("ip neigh")
	case !seen.Seen(host, probe.Request):
		return "the request left " + a + " and did not reach port " + p.A.Port, between + p.A.Command("ip neigh")
	case p.Local && !seen.Seen(host, probe.Reply):
		return "the request reached the host, and the host did not answer", "check iptables-legacy-save, ip rule, and ip neigh show dev " + p.A.Bridge
	case p.Beyond() && !seen.Seen(host, probe.Reply):
		return p.lostBeyond()
	case p.Local || p.Beyond():
		return "the answer reached the host and did not reach " + a, beyondPort + p.A.Port
	case !seen.Seen(p.B.Namespace, probe.Request):
		return "the request reached the host and did not reach " + b, beyondPort + p.B.Port
	case !seen.Seen(p.B.Namespace, probe.Reply):
		return "the request reached " + b + ", and " + b + " did not answer", "check the rules and routes in the container: " + p.B.Command("ip route get %s", p.From)
	case !seen.Seen(host, probe.Reply):
		return "the answer left " + b + " and did not reach port " + p.B.Port, between + p.B.Command("ip neigh")
	}
	return "the answer reached the host and did not reach " + a, beyondPort + p.A.Port
}
