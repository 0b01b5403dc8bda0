package checks

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// agent is the answer of bridgeveth-node, the agent of a Kubernetes node, to GET /node.
type agent struct {
	node    string   // name of the agent's own node
	reasons []string // why the node is not ready for pods
	notes   []string // the agent's warnings
	peers   []peer
}

// peer is an address range of pods on another node, and how an agent reaches this range.
type peer struct {
	node      string
	addresses []netip.Addr // InternalIPs of the node
	pods      netip.Prefix
	reached   string     // "direct", "tunnel", "fabric" or "no"
	gateway   netip.Addr // not valid without a route
	link      string
}

// An AgentAsker sends GET /node to the agent on a host, and returns the answer. The parameter host
// is an IP address.
type AgentAsker func(host string) (text string, err error)

// ask asks the agent on a host, and parses the agent's answer.
func (ask AgentAsker) ask(host string) (*agent, error) {
	text, err := ask(host)
	if err != nil {
		return nil, err
	}
	return parseAgent(text)
}

// agentOfHost returns the answer of the agent on this host, or nil if the agent does not answer.
// The first call for a path asks the agent, and adds a station with the agent's state. Later calls
// return the same answer.
func (p *Path) agentOfHost() *agent {
	if p.asked {
		return p.agent
	}
	p.asked = true
	var err error
	p.agent, err = p.AskAgent.ask("127.0.0.1")
	switch {
	case err != nil:
		p.Note("node agent", "bridgeveth-node does not answer on this host (%v), so nothing restores what it has set up", err)
	case len(p.agent.reasons) > 0:
		p.Note("node agent", "bridgeveth-node says that this node is not ready: %s", strings.Join(p.agent.reasons, "; "))
	default:
		p.Good("node agent", "bridgeveth-node says that this node is ready")
	}
	return p.agent
}

// restores returns advice about a missing object of the agent on this host: start the agent, or
// wait until the agent restores the object.
func (p *Path) restores() string {
	if p.agentOfHost() == nil {
		return "start bridgeveth-node on this host, which restores it"
	}
	return "bridgeveth-node restores it within 30 seconds; if not, its log has the reason"
}

// parseAgent parses the answer of an agent. The method Agent.node in
// cmd/bridgeveth-node/internal/agent writes this answer.
func parseAgent(text string) (*agent, error) {
	a := &agent{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "node "); ok && a.node == "" {
			a.node, _, _ = strings.Cut(name, ",")
		} else if reason, ok := strings.CutPrefix(line, "not ready: "); ok {
			a.reasons = append(a.reasons, reason)
		} else if warning, ok := strings.CutPrefix(line, "warning: "); ok {
			a.notes = append(a.notes, warning)
		} else if p, ok := parsePeer(strings.Fields(line)); ok {
			a.peers = append(a.peers, p)
		}
	}
	if a.node == "" {
		return nil, errors.New("the answer is not from bridgeveth-node")
	}
	return a, nil
}

// parsePeer parses the words of a line such as:
//
//	n3 172.31.0.13 10.244.3.0/24 tunnel via 10.244.3.0 dev bvx0
//
// The words are the node, its addresses, its pod range, how the agent reaches the range, and the
// route. A node without addresses has "-" in their place. A range without a route has "-" at the
// end.
func parsePeer(words []string) (p peer, ok bool) {
	at := slices.IndexFunc(words, func(w string) bool { _, err := netip.ParsePrefix(w); return err == nil })
	if at < 2 || at+1 >= len(words) {
		return p, false
	}
	p.node, p.pods, p.reached = words[0], netip.MustParsePrefix(words[at]), words[at+1]
	for _, w := range words[1:at] {
		if a, err := netip.ParseAddr(w); err == nil {
			p.addresses = append(p.addresses, a)
		}
	}
	if route := words[at+2:]; len(route) == 4 && route[0] == "via" && route[2] == "dev" {
		p.gateway, _ = netip.ParseAddr(route[1]) // not valid if another program has printed the line
		p.link = route[3]
	}
	return p, true
}

// peerOf returns the peer whose pod range contains an address. It returns nil if there is no such
// peer, or if a is nil.
func (a *agent) peerOf(address netip.Addr) *peer {
	if a == nil {
		return nil
	}
	for i := range a.peers {
		if a.peers[i].pods.Contains(address) {
			return &a.peers[i]
		}
	}
	return nil
}

// about returns the agent's warnings about another node. The parameter node is the name of that
// node.
func (a *agent) about(node string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(a.notes), func(n string) bool { return !strings.HasPrefix(n, "node "+node+": ") }), "; ")
}
