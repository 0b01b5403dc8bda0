package checks

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
)

// CheckNode checks what bridgeveth-node, the agent of a Kubernetes node, has set up for packets to
// a pod on another node: the route, and the tunnel with its entries. It also asks the agent of the
// other node for the way back. If no agent has added routes to this host, CheckNode checks nothing.
func (p *Path) CheckNode() {
	if !p.Beyond() || p.Out == "" || p.AskAgent == nil {
		return
	}
	route, err := kernel.MatchingRoute(p.Host.Namespace, p.To, p.From, p.A.Bridge)
	if err != nil {
		return // CheckHostRoute has reported this
	}
	if _, pod := p.podRange(); !route.Agent && (!pod || !kernel.HasAgent(p.Host.Namespace)) {
		return
	}
	to := p.agentOfHost().peerOf(p.To)
	leadsThere := to != nil && to.gateway.IsValid() && route.Gateway == to.gateway && route.Link == to.link
	switch {
	case to != nil && !leadsThere && to.reached != "fabric":
		p.addWrongRoute(route, to)
		return
	case to == nil && !route.Agent, to != nil && !leadsThere:
		return // the network between the nodes may have the route
	}
	name := "the pod's node"
	if to != nil {
		name = to.node
	}
	p.Good("peer node", "%s, by the route %s", name, route)
	p.Far = route.Gateway
	if route.Link == kernel.Tunnel && !p.checkTunnel(route.Gateway, to) {
		return
	}
	p.checkFarEnd(name)
}

// addWrongRoute adds a station for the case that packets to another node's pods follow another
// route than the agent's.
func (p *Path) addWrongRoute(route kernel.NodeRoute, to *peer) {
	if !route.Agent && route.Range == to.pods {
		p.Advise("route of the host", report.Command("ip %s route del %s", familyOption(p.To), route.Range)+"; bridgeveth-node then adds its own route",
			"packets to the pods of %s follow the route %s, which bridgeveth-node did not add", to.node, route).Root = true
		return
	}
	what := "only the default route to it, by " + route.Link
	if route.Range.Bits() > 0 {
		what = fmt.Sprintf("only the route %s to it", route)
	}
	p.addNoAgentRoute(to, what)
}

// addNoAgentRoute adds a station if the host lacks the agent's route to the pods on another node.
// The parameter what describes the route that the host has instead. The parameter to is the other
// node, or nil if the node is unknown.
func (p *Path) addNoAgentRoute(to *peer, what string) {
	const station = "route of the host"
	if why := p.tunnelFault(to); why != "" {
		p.Advise("tunnel", p.restores(), "%s, so the host has %s", why, what).Root = true
		return
	}
	switch {
	case to == nil && p.agentOfHost() == nil:
		p.Advise(station, "start bridgeveth-node on this host, which adds the route", "%s is the address of a pod, and the host has %s", p.To, what).Root = true
	case to == nil:
		p.Advise(station, "check the address: bvctl node lists the pod ranges of all nodes", "no node has %s in its pod ranges, and the host has %s", p.To, what)
	case to.reached == "fabric":
		p.Advise(station, fmt.Sprintf("give the routers between the nodes a route to %s; or run bridgeveth-node without --routing=none", to.pods),
			"%s is the address of a pod on %s, and the host has %s", p.To, to.node, what)
	case !to.gateway.IsValid():
		p.Advise(station, "solve the problem that bvctl node names", "bridgeveth-node has no way to %s: %s", to.node, p.agent.about(to.node)).Root = true
	default:
		onLink := ""
		if to.link == kernel.Tunnel {
			onLink = " onlink"
		}
		p.Bad(station, report.Command("%s route replace %s via %s dev %s"+onLink+" proto 97", report.IP(p.To), to.pods, to.gateway, to.link),
			"the route to %s, the pods of %s, is missing, and the host has %s", to.pods, to.node, what).Root = true
	}
}

// tunnelFault returns a fault of the VXLAN device: the device does not exist, is down, or has no
// IPv4 address. Each of these faults makes the kernel delete the routes through the device.
// tunnelFault returns "" if there is no such fault, or if packets to the other node do not need the
// device. The parameter to is the other node, or nil if the node is unknown.
func (p *Path) tunnelFault(to *peer) string {
	d, found := kernel.FindVXLAN(p.Host.Namespace, kernel.Tunnel)
	switch {
	case to != nil && to.link != kernel.Tunnel, to == nil && !found:
		return ""
	case !found:
		return "the VXLAN device " + kernel.Tunnel + " does not exist"
	case !d.Up:
		return "the VXLAN device " + kernel.Tunnel + " is down"
	case p.Is4() && !p.hasTunnelAddress():
		return "the VXLAN device " + kernel.Tunnel + " has no IPv4 address"
	}
	return ""
}

// vxlanOverhead returns how many bytes a VXLAN device adds to a packet (RFC 7348, section 5). The
// parameter local is the source address of the device's packets.
func vxlanOverhead(local netip.Addr) int {
	if local.Is6() {
		return 70
	}
	return 50
}

// checkTunnel checks the VXLAN device of this host, and the entries of the device for another node.
// The parameter gateway is the address of that node's VXLAN device. checkTunnel sets the fields Far
// and FarTunnel. It returns false if the device is not the agent's, or if the entries lead to no
// node. The parameter to is nil if the agent does not answer.
func (p *Path) checkTunnel(gateway netip.Addr, to *peer) bool {
	p.Far, p.FarTunnel = netip.Addr{}, gateway
	d, found := kernel.FindVXLAN(p.Host.Namespace, kernel.Tunnel)
	switch {
	case !found || !d.Agent:
		p.Advise("tunnel", p.restores(), "%s is not the VXLAN device of bridgeveth-node", kernel.Tunnel)
		return false
	case !p.Has(p.Host.Namespace, d.Local):
		p.Advise("tunnel", p.restores(), "%s sends from %s, which no link of this host has", kernel.Tunnel, d.Local)
	default:
		p.Good("tunnel", "%s is up, sends from %s to UDP port %d, MTU %d", kernel.Tunnel, d.Local, d.Port, d.MTU)
	}
	if !p.hasTunnelAddress() { // the packet is an IPv6 packet: see tunnelFault
		p.Note("tunnel", "%s has no address, so this host itself does not reach pods through the tunnel: %s", kernel.Tunnel, p.restores())
	}
	remote, ok := p.checkTunnelEntries(d, gateway, to)
	if !ok {
		return false
	}
	p.Far = remote
	p.checkOuterRoute(d, remote)
	return true
}

// hasTunnelAddress reports whether the VXLAN device of this host has an address of the packet's
// family.
func (p *Path) hasTunnelAddress() bool {
	for a, all := range p.holders {
		if a.Is4() == p.Is4() && !a.IsLinkLocalUnicast() && slices.ContainsFunc(all, func(h holder) bool { return h.end == nil && h.link == kernel.Tunnel }) {
			return true
		}
	}
	return false
}

// checkTunnelEntries checks two entries of the VXLAN device: the neighbour entry of a gateway, and
// the forwarding entry for the MAC in the neighbour entry. It returns the address of the node to
// which the forwarding entry leads.
func (p *Path) checkTunnelEntries(d kernel.VXLAN, gateway netip.Addr, to *peer) (remote netip.Addr, ok bool) {
	neighbours, err := kernel.Neighbours(p.Host.Namespace, d.Index, kernel.FamilyOf(gateway))
	entries, err2 := kernel.FDB(p.Host.Namespace)
	if err != nil || err2 != nil {
		p.Note("tunnel entries", "cannot be read: %v %v", err, err2)
		return remote, false
	}
	entries = slices.DeleteFunc(entries, func(n kernel.FDBEntry) bool { return n.Port != d.Index })
	isPeer := func(n kernel.FDBEntry) bool { return to == nil || slices.Contains(to.addresses, n.Remote) }
	var known, believed net.HardwareAddr // the peer's MAC in the forwarding entries, and in the neighbour entry
	if i := slices.IndexFunc(entries, isPeer); to != nil && i >= 0 {
		known = entries[i].MAC
	}
	if i := slices.IndexFunc(neighbours, func(n kernel.Neighbour) bool { return n.Address == gateway && n.Fixed }); i >= 0 {
		believed = neighbours[i].MAC
	}
	i := slices.IndexFunc(entries, func(n kernel.FDBEntry) bool { return believed != nil && bytes.Equal(n.MAC, believed) })
	switch {
	case believed == nil || i < 0 && known != nil:
		what := "the neighbour entry for " + gateway.String() + " on " + kernel.Tunnel + " is missing"
		if believed != nil {
			what = fmt.Sprintf("the neighbour entry for %s on %s has MAC %s, which no node has", gateway, kernel.Tunnel, believed)
		}
		if known == nil {
			p.Advise("neighbour entry of the tunnel", p.restores(), "%s", what).Root = true
		} else {
			p.Bad("neighbour entry of the tunnel", report.Command("ip neigh replace %s lladdr %s dev %s", gateway, known, kernel.Tunnel), "%s", what).Root = true
		}
		return remote, false
	case i < 0 || !isPeer(entries[i]):
		what := fmt.Sprintf("the forwarding entry for %s on %s is missing", believed, kernel.Tunnel)
		if i >= 0 {
			what = fmt.Sprintf("the forwarding entry for %s on %s leads to %s, which is not an InternalIP of %s", believed, kernel.Tunnel, entries[i].Remote, to.node)
		}
		p.addNoForwardingEntry(d, believed, to, what)
		return remote, false
	}
	p.Good("tunnel entries", "%s has MAC %s, which leads to %s", gateway, believed, entries[i].Remote)
	return entries[i].Remote, true
}

// addNoForwardingEntry adds a station for a missing or wrong forwarding entry of the VXLAN device.
// If the agent knows the address of the other node, the station has the command that sets the
// entry.
func (p *Path) addNoForwardingEntry(d kernel.VXLAN, mac net.HardwareAddr, to *peer, what string) {
	const station = "forwarding entry of the tunnel"
	if to != nil {
		for _, a := range to.addresses {
			if a.Is4() == d.Local.Is4() {
				p.Bad(station, report.Command("bridge fdb replace %s dev %s dst %s", mac, kernel.Tunnel, a), "%s", what).Root = true
				return
			}
		}
	}
	p.Advise(station, p.restores(), "%s", what).Root = true
}

// checkOuterRoute checks the host's route for the tunnel's packets to another node. It also checks
// that the packets are not too large for the link of this route.
func (p *Path) checkOuterRoute(d kernel.VXLAN, remote netip.Addr) {
	const station = "route to the peer node"
	outer, err := kernel.RouteTo(p.Host.Namespace, remote, d.Local, "")
	if err != nil || outer.Type != "" || outer.Link == kernel.Tunnel {
		why := "it leads into the tunnel itself"
		if err != nil {
			why = kernel.Reason(err)
		} else if outer.Type != "" {
			why = "a " + outer.Type + " route drops the packets"
		}
		p.Advise(station, fmt.Sprintf("check ip %[1]s rule; ip %[1]s route show table all match %[2]s", familyOption(remote), remote), "no route from %s to %s: %s", d.Local, remote, why).Root = true
		return
	}
	link, err := p.Link(p.Host.Namespace, outer.Link)
	if err != nil {
		return // the link was deleted meanwhile
	}
	most := link.Attrs().MTU - vxlanOverhead(d.Local)
	if d.MTU > most {
		p.Bad("MTU of the tunnel", report.Command("ip link set %s mtu %d", kernel.Tunnel, most), "%s has MTU %d, and %s can send at most %d bytes of a packet in the tunnel", kernel.Tunnel, d.MTU, outer.Link, most)
		return
	}
	if inside, err := p.Link(p.A.Namespace, p.A.Interface); err == nil && inside.Attrs().MTU > d.MTU {
		p.Note("MTU of the tunnel", "%s has MTU %d, and %s has MTU %d; senders that ignore ICMP lose large packets: %s", kernel.Tunnel, d.MTU, p.A.Name, inside.Attrs().MTU, p.restores())
	}
	p.Good(station, "to %s by %s, MTU %d", remote, outer.Link, link.Attrs().MTU)
}

// checkFarEnd asks the agent of the target's node whether the node has a way back. It is no fault
// if the agent does not answer, because agents listen only on 127.0.0.1 by default.
func (p *Path) checkFarEnd(node string) {
	const station = "far end"
	far, err := p.AskAgent.ask(p.Far.String())
	if err != nil {
		p.Note(station, "the agent of %s at %s cannot be asked from here (%v), so run bvctl node there", node, p.Far, err)
		return
	}
	if len(far.reasons) > 0 {
		p.Advise(station, "solve the problem on "+far.node, "%s is not ready: %s", far.node, strings.Join(far.reasons, "; "))
		return
	}
	switch back := far.peerOf(p.From); {
	case back == nil:
		p.Advise(station, "run bvctl node on "+far.node, "%s knows no node with %s in its pod ranges", far.node, p.From)
	case back.reached == "no":
		p.Advise(station, "solve the problem that bvctl node names on "+far.node, "%s has no way back to %s: %s", far.node, back.pods, far.about(back.node))
	default:
		p.Good(station, "%s is ready; its way back to %s: %s", far.node, back.pods, back.reached)
	}
}

// checkNodeNeighbour checks the host's neighbour entry for the next hop on the way to the target's
// node.
func (p *Path) checkNodeNeighbour() {
	if !p.Far.IsValid() {
		return
	}
	route, err := kernel.RouteTo(p.Host.Namespace, p.Far, netip.Addr{}, "")
	if err != nil {
		return // checkOuterRoute has reported this
	}
	next := p.Far
	if route.Gateway.IsValid() {
		next = route.Gateway
	}
	link, err := p.Link(p.Host.Namespace, route.Link)
	if err != nil {
		return
	}
	all, err := kernel.Neighbours(p.Host.Namespace, link.Attrs().Index, kernel.FamilyOf(next))
	if err != nil {
		return
	}
	const station = "neighbour of the host"
	for _, n := range all {
		switch {
		case n.Address != next:
		case n.Fixed:
			p.Bad(station, report.Command("ip neigh del %s dev %s", next, route.Link), "the neighbour entry for %s, on the way to the pod's node, is permanent and has MAC %s, so the host does not ask for the MAC", next, n.MAC)
		case n.Failed:
			p.Advise(station, "check that this host is up, and the network between the nodes", "%s, on the way to the pod's node, does not answer requests for its MAC on %s", next, route.Link)
		}
	}
}
