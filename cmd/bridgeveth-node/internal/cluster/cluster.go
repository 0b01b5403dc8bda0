// Package cluster computes what a node needs so that its pods reach the pods of all other nodes:
// routes, one VXLAN device with its entries, destinations that are not masqueraded, and the MTU of
// pods. It computes this State from Node objects and from the node's own links. It changes nothing.
package cluster

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Node holds the fields of a Node object that the agent uses.
type Node struct {
	Name      string
	Created   time.Time
	Ranges    []netip.Prefix // spec.podCIDRs
	Addresses []netip.Addr   // status.addresses of type InternalIP, in the same order

	NetworkUnavailable bool // the condition NetworkUnavailable is True; set only for the own node
}

// Uplink is a link of the own node that has one of the node's InternalIPs.
type Uplink struct {
	Address netip.Addr
	Link    string
	MTU     int            // bytes
	OnLink  []netip.Prefix // destinations that the link reaches without a gateway
}

// Local is a subnet of a link of the host.
type Local struct {
	Link   string
	Subnet netip.Prefix
}

// Routing selects how packets reach the pods of other nodes.
type Routing string

// The kinds of routing.
const (
	RoutingAuto   Routing = "auto"   // routes to nodes on the same link, VXLAN to all others
	RoutingDirect Routing = "direct" // routes through the nodes' InternalIPs
	RoutingVXLAN  Routing = "vxlan"  // VXLAN to every node
	RoutingNone   Routing = "none"   // none, because the network between the nodes routes the pod ranges
)

// Settings are the values of flags that affect what a node needs.
type Settings struct {
	Routing      Routing
	VXLANPort    int            // UDP
	ClusterCIDRs []netip.Prefix // if empty, the pod ranges of all nodes are used
	ServiceCIDRs []netip.Prefix // pod ranges must not overlap with these; may be empty
	NoMasquerade []netip.Prefix // additional destinations that see the pod's own address
	ShowToNodes  bool           // the InternalIPs of nodes see the pod's own address, too
}

// Problem is something that an administrator must know about.
type Problem struct {
	Node string // name of the Node object that the problem is about
	Own  bool   // because of the problem, the own node is not ready for pods
	Text string
}

// Route is a route to the pod range of another node.
type Route struct {
	Range   netip.Prefix
	Gateway netip.Addr // may be of another family than Range
	Link    string
	OnLink  bool // the gateway is reachable on the link, although no route says so
}

// State describes what a node needs.
type State struct {
	Ranges       []netip.Prefix // the pod ranges of the own node
	Routes       []Route        // sorted by range
	Tunnel       *Tunnel        // nil if no peer needs the tunnel
	Pods         []netip.Prefix // pod ranges of the whole cluster; adjacent ranges are joined
	NoMasquerade []netip.Prefix // destinations that see the pod's own address, joined like Pods
	MTU          int            // MTU of pods, in bytes
}

// Wanted returns the state that the node called self needs. If this state cannot be determined yet,
// ok is false, and a Problem whose field Own is true gives the reason. Wanted leaves out the peers
// that cannot be reached, and returns a Problem for each of them.
func Wanted(self string, nodes []Node, uplinks []Uplink, locals []Local, set Settings) (state State, problems []Problem, ok bool) {
	nodes, problems = withoutConflicts(nodes, locals, self, set)
	i := slices.IndexFunc(nodes, func(n Node) bool { return n.Name == self })
	if i < 0 {
		problems = append(problems, Problem{self, true, "the API server has no Node object " + self + "; start the kubelet, or set --node-name"})
		return State{}, problems, false
	}
	own := nodes[i]
	peers := slices.DeleteFunc(slices.Clone(nodes), func(n Node) bool { return n.Name == self })
	problems = append(problems, ownProblems(own, uplinks, problems)...)
	if slices.ContainsFunc(problems, func(p Problem) bool { return p.Own }) {
		return State{}, problems, false
	}

	state.Ranges = own.Ranges
	state.MTU = slices.MinFunc(uplinks, func(a, b Uplink) int { return cmp.Compare(a.MTU, b.MTU) }).MTU
	pods := podRanges(nodes, set)
	state.Pods, state.NoMasquerade = join(pods), noMasquerade(pods, nodes, set)
	for _, peer := range peers {
		if len(peer.Ranges) == 0 {
			continue // the peer has no pods yet
		}
		if p := state.reach(own, peer, uplinks, set); p != "" {
			problems = append(problems, Problem{Node: peer.Name, Text: p})
		}
	}
	if state.Tunnel != nil {
		state.MTU -= overhead(state.Tunnel.Local)
		slices.SortFunc(state.Tunnel.Peers, func(a, b Peer) int { return cmp.Compare(a.MAC, b.MAC) })
	}
	slices.SortFunc(state.Routes, func(a, b Route) int { return a.Range.Compare(b.Range) })
	return state, problems, true
}

// ownProblems returns the problems that keep the own node from being ready for pods. The parameter
// found contains the problems that the caller has already found. If one of them concerns the own
// node, ownProblems returns none.
func ownProblems(own Node, uplinks []Uplink, found []Problem) (problems []Problem) {
	say := func(text string) { problems = append(problems, Problem{own.Name, true, text}) }
	if slices.ContainsFunc(found, func(p Problem) bool { return p.Own }) {
		return nil // withoutConflicts has removed the ranges and reported the problem
	}
	switch {
	case len(own.Ranges) == 0:
		say("spec.podCIDRs is empty; start kube-controller-manager with --allocate-node-cidrs and --cluster-cidr, or set the field")
	case len(own.Addresses) == 0:
		say("status.addresses has no InternalIP; start the kubelet with --node-ip")
	case len(uplinks) == 0:
		say(fmt.Sprintf("no link of this host has the InternalIP %v; correct the kubelet's --node-ip, or add the address", own.Addresses))
	}
	return problems
}

// reach adds to s what the own node needs to reach a peer. If there is no way to the peer, reach
// returns the reason.
func (s *State) reach(own, peer Node, uplinks []Uplink, set Settings) (problem string) {
	if set.Routing == RoutingNone {
		return ""
	}
	if len(peer.Addresses) == 0 {
		return "status.addresses has no InternalIP; its pods are not reachable until its kubelet reports one"
	}
	for _, a := range peer.Addresses {
		if slices.Contains(own.Addresses, a) {
			return fmt.Sprintf("its InternalIP %v is also that of this node; correct the --node-ip of one of the kubelets", a)
		}
	}
	if set.Routing != RoutingVXLAN {
		routes, whole := direct(peer, uplinks)
		if whole {
			s.Routes = append(s.Routes, routes...)
			return ""
		}
		if set.Routing == RoutingDirect {
			return fmt.Sprintf("its InternalIP %v is not on a link that this node shares; use --routing auto or vxlan, or none if routers know its pod ranges", peer.Addresses)
		}
	}
	return s.tunnel(own, peer, set)
}

// direct returns the routes to the pod ranges of a peer. The gateway of each route is an InternalIP
// of the peer. The result whole is false if a pod range cannot be reached through such a gateway.
func direct(peer Node, uplinks []Uplink) (routes []Route, whole bool) {
	for _, r := range peer.Ranges {
		gateway, link := hop(r, peer, uplinks)
		if link == "" {
			return nil, false
		}
		routes = append(routes, Route{Range: r, Gateway: gateway, Link: link})
	}
	return routes, true
}

// hop returns an InternalIP of a peer that is on one of the uplinks, and the name of this uplink.
// It prefers an InternalIP of the same family as the range r. An IPv4 range may have an IPv6
// gateway (since Linux 5.2), but an IPv6 range cannot have an IPv4 gateway.
func hop(r netip.Prefix, peer Node, uplinks []Uplink) (gateway netip.Addr, link string) {
	for _, same := range []bool{true, false} {
		for _, a := range peer.Addresses {
			if (a.Is4() == r.Addr().Is4()) != same || r.Addr().Is6() && a.Is4() {
				continue
			}
			for _, u := range uplinks {
				if slices.ContainsFunc(u.OnLink, func(p netip.Prefix) bool { return p.Contains(a) }) {
					return a, u.Link
				}
			}
		}
	}
	return netip.Addr{}, ""
}

// podRanges returns the pod ranges of the cluster.
func podRanges(nodes []Node, set Settings) (all []netip.Prefix) {
	if len(set.ClusterCIDRs) > 0 {
		return set.ClusterCIDRs
	}
	for _, n := range nodes {
		all = append(all, n.Ranges...)
	}
	return all
}

// noMasquerade returns the destinations to which packets of pods are not masqueraded.
func noMasquerade(pods []netip.Prefix, nodes []Node, set Settings) []netip.Prefix {
	all := slices.Concat(pods, set.NoMasquerade)
	if set.ShowToNodes {
		for _, n := range nodes {
			for _, a := range n.Addresses {
				all = append(all, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	return join(all)
}
