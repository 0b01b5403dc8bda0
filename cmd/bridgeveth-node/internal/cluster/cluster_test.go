package cluster

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

func addresses(texts ...string) (list []netip.Addr) {
	for _, t := range texts {
		list = append(list, netip.MustParseAddr(t))
	}
	return list
}

// node returns a Node with this name. internal contains its InternalIPs, and ranges contains its
// pod ranges, each separated by spaces.
func node(name, internal, ranges string) Node {
	return Node{Name: name, Addresses: addresses(strings.Fields(internal)...), Ranges: prefixes(strings.Fields(ranges)...)}
}

var (
	eth0 = Uplink{Address: netip.MustParseAddr("172.30.0.11"), Link: "eth0", MTU: 1500, OnLink: prefixes("172.30.0.0/24")}
	six  = Uplink{Address: netip.MustParseAddr("fd00:172::11"), Link: "eth0", MTU: 1500, OnLink: prefixes("fd00:172::/64")}
	n1   = node("n1", "172.30.0.11", "10.244.1.0/24")
	near = node("near", "172.30.0.12", "10.244.2.0/24")
	far  = node("far", "172.31.0.13", "10.244.3.0/24")
)

func tunnelled(r, gateway string) Route {
	return Route{Range: netip.MustParsePrefix(r), Gateway: netip.MustParseAddr(gateway), Link: TunnelLink, OnLink: true}
}

func through(r, gateway string) Route {
	return Route{Range: netip.MustParsePrefix(r), Gateway: netip.MustParseAddr(gateway), Link: "eth0"}
}

func TestWanted(t *testing.T) {
	const port = 4789
	farPeer := Peer{MAC: MAC("far"), Remote: far.Addresses[0], Gateways: addresses("10.244.3.0")}
	nearPeer := Peer{MAC: MAC("near"), Remote: near.Addresses[0], Gateways: addresses("10.244.2.0")}
	for _, tt := range []struct {
		name    string
		nodes   []Node
		uplinks []Uplink // default: eth0
		set     Settings
		want    State  // want.Pods equals want.NoMasquerade unless the case sets it
		problem string // beginning of the only problem
	}{{
		name: "alone", nodes: []Node{n1},
		want: State{Ranges: n1.Ranges, MTU: 1500, NoMasquerade: n1.Ranges},
	}, {
		name: "auto: direct on the same link, tunnel beyond", nodes: []Node{far, n1, near},
		want: State{
			Ranges: n1.Ranges, MTU: 1450, NoMasquerade: prefixes("10.244.1.0/24", "10.244.2.0/23"),
			Routes: []Route{through("10.244.2.0/24", "172.30.0.12"), tunnelled("10.244.3.0/24", "10.244.3.0")},
			Tunnel: &Tunnel{Local: eth0.Address, Port: port, MTU: 1450, MAC: MAC("n1"), Addresses: prefixes("10.244.1.0/32"), Peers: []Peer{farPeer}},
		},
	}, {
		name: "vxlan: a tunnel to everybody", nodes: []Node{n1, near}, set: Settings{Routing: RoutingVXLAN},
		want: State{
			Ranges: n1.Ranges, MTU: 1450, NoMasquerade: prefixes("10.244.1.0/24", "10.244.2.0/24"),
			Routes: []Route{tunnelled("10.244.2.0/24", "10.244.2.0")},
			Tunnel: &Tunnel{Local: eth0.Address, Port: port, MTU: 1450, MAC: MAC("n1"), Addresses: prefixes("10.244.1.0/32"), Peers: []Peer{nearPeer}},
		},
	}, {
		name: "none: no routes", nodes: []Node{n1, near, far}, set: Settings{Routing: RoutingNone},
		want: State{Ranges: n1.Ranges, MTU: 1500, NoMasquerade: prefixes("10.244.1.0/24", "10.244.2.0/23")},
	}, {
		name: "direct: a node beyond a router", nodes: []Node{n1, near, far}, set: Settings{Routing: RoutingDirect},
		want: State{
			Ranges: n1.Ranges, MTU: 1500, NoMasquerade: prefixes("10.244.1.0/24", "10.244.2.0/23"),
			Routes: []Route{through("10.244.2.0/24", "172.30.0.12")},
		},
		problem: "far: its InternalIP [172.31.0.13] is not on a link that this node shares",
	}, {
		name:    "two families",
		nodes:   []Node{node("n1", "172.30.0.11 fd00:172::11", "10.244.1.0/24 fd00:1::/64"), node("near", "172.30.0.12 fd00:172::12", "10.244.2.0/24 fd00:2::/64")},
		uplinks: []Uplink{eth0, six},
		want: State{
			Ranges: prefixes("10.244.1.0/24", "fd00:1::/64"), MTU: 1500,
			NoMasquerade: prefixes("10.244.1.0/24", "10.244.2.0/24", "fd00:1::/64", "fd00:2::/64"),
			Routes:       []Route{through("10.244.2.0/24", "172.30.0.12"), through("fd00:2::/64", "fd00:172::12")},
		},
	}, {
		name:    "IPv4 pods over an IPv6 network",
		nodes:   []Node{node("n1", "fd00:172::11", "10.244.1.0/24"), node("near", "fd00:172::12", "10.244.2.0/24"), node("far", "fd00:173::13", "10.244.3.0/24")},
		uplinks: []Uplink{six},
		want: State{
			Ranges: n1.Ranges, MTU: 1430, NoMasquerade: prefixes("10.244.1.0/24", "10.244.2.0/23"),
			Routes: []Route{through("10.244.2.0/24", "fd00:172::12"), tunnelled("10.244.3.0/24", "10.244.3.0")},
			Tunnel: &Tunnel{Local: six.Address, Port: port, MTU: 1430, MAC: MAC("n1"), Addresses: prefixes("10.244.1.0/32"),
				Peers: []Peer{{MAC: MAC("far"), Remote: netip.MustParseAddr("fd00:173::13"), Gateways: addresses("10.244.3.0")}}},
		},
	}, {
		name: "IPv6 pods over an IPv4 network need the tunnel", nodes: []Node{node("n1", "172.30.0.11", "fd00:1::/64"), node("near", "172.30.0.12", "fd00:2::/64")},
		want: State{
			Ranges: prefixes("fd00:1::/64"), MTU: 1450, NoMasquerade: prefixes("fd00:1::/64", "fd00:2::/64"),
			Routes: []Route{tunnelled("fd00:2::/64", "fd00:2::")},
			Tunnel: &Tunnel{Local: eth0.Address, Port: port, MTU: 1450, MAC: MAC("n1"), Addresses: prefixes("fd00:1::/128"),
				Peers: []Peer{{MAC: MAC("near"), Remote: near.Addresses[0], Gateways: addresses("fd00:2::")}}},
		},
	}, {
		name: "destinations by flag", nodes: []Node{n1, near},
		set: Settings{ClusterCIDRs: prefixes("10.244.0.0/16"), NoMasquerade: prefixes("192.168.0.0/16"), ShowToNodes: true},
		want: State{
			Ranges: n1.Ranges, MTU: 1500, Routes: []Route{through("10.244.2.0/24", "172.30.0.12")},
			Pods:         prefixes("10.244.0.0/16"),
			NoMasquerade: prefixes("10.244.0.0/16", "172.30.0.11/32", "172.30.0.12/32", "192.168.0.0/16"),
		},
	}, {
		name: "a peer without a range yet", nodes: []Node{n1, node("new", "172.30.0.14", "")},
		want: State{Ranges: n1.Ranges, MTU: 1500, NoMasquerade: n1.Ranges},
	}, {
		name: "a peer without an InternalIP", nodes: []Node{n1, node("lost", "", "10.244.9.0/24")},
		want:    State{Ranges: n1.Ranges, MTU: 1500, NoMasquerade: prefixes("10.244.1.0/24", "10.244.9.0/24")},
		problem: "lost: status.addresses has no InternalIP",
	}, {
		name: "a peer with the InternalIP of this node", nodes: []Node{n1, node("twin", "172.30.0.11", "10.244.9.0/24")},
		want:    State{Ranges: n1.Ranges, MTU: 1500, NoMasquerade: prefixes("10.244.1.0/24", "10.244.9.0/24")},
		problem: "twin: its InternalIP 172.30.0.11 is also that of this node",
	}, {
		name: "a peer of the other family only", nodes: []Node{n1, node("other", "fd00::9", "10.244.9.0/24")},
		want:    State{Ranges: n1.Ranges, MTU: 1500, NoMasquerade: prefixes("10.244.1.0/24", "10.244.9.0/24")},
		problem: "other: its InternalIP [fd00::9] is not of the family of 172.30.0.11",
	}, {
		name: "a peer whose range contains the InternalIP of another node", nodes: []Node{n1, far, node("greedy", "172.30.0.14", "172.31.0.0/24")}, set: Settings{Routing: RoutingNone},
		want:    State{Ranges: n1.Ranges, MTU: 1500, NoMasquerade: prefixes("10.244.1.0/24", "10.244.3.0/24")},
		problem: "greedy: spec.podCIDRs: 172.31.0.0/24 contains 172.31.0.13, the InternalIP of node far",
	}, {
		name: "a peer whose range a local link has", nodes: []Node{n1, node("docker", "172.30.0.14", "172.17.3.0/24")},
		want:    State{Ranges: n1.Ranges, MTU: 1500, NoMasquerade: n1.Ranges},
		problem: "docker: spec.podCIDRs: 172.17.3.0/24 overlaps with 172.17.0.0/16 of link docker0",
	}} {
		t.Run(tt.name, func(t *testing.T) {
			set := tt.set
			set.VXLANPort = port
			if set.Routing == "" {
				set.Routing = RoutingAuto
			}
			if tt.uplinks == nil {
				tt.uplinks = []Uplink{eth0}
			}
			if tt.want.Pods == nil {
				tt.want.Pods = tt.want.NoMasquerade
			}
			locals := []Local{{"docker0", netip.MustParsePrefix("172.17.0.0/16")}}
			got, problems, ok := Wanted("n1", tt.nodes, tt.uplinks, locals, set)
			if !ok {
				t.Fatalf("refused: %v", problems)
			}
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			checkProblem(t, problems, tt.problem, false)
		})
	}
}

// checkProblem fails the test unless there is exactly one problem, and its node and text begin with
// the text want. If want is "", there must be no problem.
func checkProblem(t *testing.T, problems []Problem, want string, own bool) {
	t.Helper()
	switch {
	case want == "" && len(problems) == 0:
	case want != "" && len(problems) == 1 && strings.HasPrefix(problems[0].Node+": "+problems[0].Text, want) && problems[0].Own == own:
	default:
		t.Errorf("got problems %+v, want one that begins with %q", problems, want)
	}
}

func TestNotYet(t *testing.T) {
	docker := []Local{{"docker0", netip.MustParsePrefix("172.17.0.0/16")}}
	for _, tt := range []struct {
		name    string
		nodes   []Node
		uplinks []Uplink
		problem string
	}{
		{"no Node object", []Node{near}, []Uplink{eth0}, "n1: the API server has no Node object n1"},
		{"no range", []Node{node("n1", "172.30.0.11", "")}, []Uplink{eth0}, "n1: spec.podCIDRs is empty"},
		{"no InternalIP", []Node{node("n1", "", "10.244.1.0/24")}, nil, "n1: status.addresses has no InternalIP"},
		{"an InternalIP of no link", []Node{n1}, nil, "n1: no link of this host has the InternalIP"},
		{"the range contains the InternalIP", []Node{node("n1", "172.30.0.11", "172.30.0.0/24")}, []Uplink{eth0}, "n1: spec.podCIDRs: 172.30.0.0/24 contains 172.30.0.11, the InternalIP of this node"},
		{"the range contains the InternalIP of another node", []Node{node("n1", "172.30.0.11", "172.31.0.0/24"), far}, []Uplink{eth0}, "n1: spec.podCIDRs: 172.31.0.0/24 contains 172.31.0.13, the InternalIP of node far"},
		{"the range overlaps with the services", []Node{node("n1", "172.30.0.11", "10.96.7.0/24")}, []Uplink{eth0}, "n1: spec.podCIDRs: 10.96.7.0/24 overlaps with the service range 10.96.0.0/16"},
		{"the range overlaps with a bridge", []Node{node("n1", "172.30.0.11", "172.17.3.0/24")}, []Uplink{eth0}, "n1: spec.podCIDRs: 172.17.3.0/24 overlaps with 172.17.0.0/16 of link docker0"},
		{"an older node has the range", []Node{n1, node("a", "172.30.0.14", "10.244.0.0/16")}, []Uplink{eth0}, "n1: spec.podCIDRs: 10.244.1.0/24 overlaps with 10.244.0.0/16 of the older node a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set := Settings{Routing: RoutingAuto, ServiceCIDRs: prefixes("10.96.0.0/16")}
			state, problems, ok := Wanted("n1", tt.nodes, tt.uplinks, docker, set)
			if ok {
				t.Errorf("got %+v", state)
			}
			checkProblem(t, problems, tt.problem, true)
		})
	}
}

// TestSameRange checks two nodes with the same range: the older node must keep the range.
func TestSameRange(t *testing.T) {
	older, younger := near, node("younger", "172.30.0.14", "10.244.2.0/24 fd00:2::/64")
	older.Created, younger.Created = time.Unix(1, 0), time.Unix(2, 0)
	state, problems, ok := Wanted("n1", []Node{younger, n1, older}, []Uplink{eth0, six}, nil, Settings{Routing: RoutingDirect})
	if want := []Route{through("10.244.2.0/24", "172.30.0.12")}; !ok || len(state.Routes) != 1 || state.Routes[0] != want[0] {
		t.Errorf("got %v, %v", ok, state.Routes)
	}
	if len(problems) != 2 || !strings.Contains(problems[0].Text, "10.244.2.0/24 overlaps with 10.244.2.0/24 of the older node near") || problems[0].Node != "younger" {
		t.Errorf("got %v", problems)
	}
}

func TestJoin(t *testing.T) {
	for _, tt := range []struct{ name, all, want string }{
		{"none", "", ""},
		{"order and doubles", "10.2.0.0/24 10.1.0.0/24 10.2.0.0/24", "10.1.0.0/24 10.2.0.0/24"},
		{"halves of halves", "10.0.3.0/24 10.0.2.0/24 10.0.1.0/24 10.0.0.0/24", "10.0.0.0/22"},
		{"neighbours that are no halves", "10.0.1.0/24 10.0.2.0/24", "10.0.1.0/24 10.0.2.0/24"},
		{"contained", "10.0.0.0/8 10.9.0.0/16", "10.0.0.0/8"},
		{"contained in what was joined", "10.0.0.0/25 10.0.0.128/25 10.0.0.200/32", "10.0.0.0/24"},
		{"everything", "0.0.0.0/1 128.0.0.0/1", "0.0.0.0/0"},
		{"families apart", "fd00:1::/64 fd00::/64 10.0.0.0/24", "10.0.0.0/24 fd00::/64 fd00:1::/64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, p := range join(prefixes(strings.Fields(tt.all)...)) {
				got = append(got, p.String())
			}
			if text := strings.Join(got, " "); text != tt.want {
				t.Errorf("got %s, want %s", text, tt.want)
			}
		})
	}
}
