package agent

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
	"github.com/bridgeveth/bridgeveth/pkg/doctor"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// pair is two nodes on one link, each with an agent and a pod. The near node n1 is in the network
// namespace of the test. Packets go from the pod of n1 to the pod of n2.
type pair struct {
	*testing.T
	near, far   *Agent
	farNS       *setup.Namespace
	silent      string // the agents on these hosts do not answer
	asked       []string
	from, to    *doctor.End
	objectsNear *objects
}

func newPair(t *testing.T, routing cluster.Routing) *pair {
	near, nodes := newAgent(t)
	p := &pair{T: t, near: near, farNS: setuptest.Container(t, "n2"), objectsNear: nodes}
	near.Settings.Routing = routing
	nodes.all = nodes.all[:2]
	pod := setuptest.Container(t, "pod2")
	setuptest.Run(t, "sh", "-ec", `ip link set lan netns n2; ip -n n2 addr add 172.30.0.12/16 dev lan; ip -n n2 link set lan up
		ip -n n2 link add cni0 up type veth peer name eth0 netns pod2; ip -n n2 addr add 10.244.2.1/24 dev cni0
		ip -n pod2 addr add 10.244.2.5/24 dev eth0; ip -n pod2 link set eth0 up; ip -n pod2 route add default via 10.244.2.1
		ip route add default via 172.30.0.99`)
	if err := p.farNS.Do(func() (err error) {
		setuptest.SetSysctl(t, "ipv4/ip_forward", "1")
		p.far = restart(t, &Agent{Self: "n2", Settings: near.Settings, Nodes: &objects{all: nodes.all}})
		p.far.Conflist.Path = t.TempDir() + "/10-bridgeveth.conflist"
		p.far.Host, err = setup.CurrentHost()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.far.Host.Close)
	p.look()
	ns, address := near.addPod(t, "pod")
	p.from = &doctor.End{
		Name: "pod", Namespace: ns, Interface: "eth0", Bridge: "cni0", Addresses: []netip.Prefix{netip.PrefixFrom(address, 24)},
		Port: setup.Attachment{Network: "kubernetes", Container: "pod", Interface: "eth0"}.Port(),
	}
	p.to = &doctor.End{Name: "10.244.2.5", Addresses: []netip.Prefix{netip.MustParsePrefix("10.244.2.5/32")}}
	p.look()
	if !setuptest.Ping(t, ns, "10.244.2.5") || !setuptest.Ping(t, pod, "10.244.1.2") {
		t.Fatal("the pods do not reach each other")
	}
	return p
}

// look makes each of the two agents compare its node with the Node objects once, and correct the
// differences.
func (p *pair) look() {
	p.Helper()
	p.near.Look()
	if err := p.farNS.Do(func() error { p.far.Look(); return nil }); err != nil {
		p.Fatal(err)
	}
}

// ask sends a request to the agent on a host, as bvctl does by HTTP. Agents in p.silent do not
// answer.
func (p *pair) ask(host string) (string, error) {
	p.asked = append(p.asked, host)
	a := map[string]*Agent{"127.0.0.1": p.near, "172.30.0.12": p.far}[host]
	if a == nil || strings.Contains(p.silent, host) {
		return "", errors.New("connection refused")
	}
	_, text := a.get("/node")
	return text, nil
}

// walk makes the doctor follow a packet from the pod of n1 to the pod of n2.
func (p *pair) walk() *doctor.Report {
	p.Helper()
	d := &doctor.Doctor{Host: p.near.Host, Ends: []*doctor.End{p.from}, PodRanges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, AskAgent: p.ask}
	r, err := d.Walk(p.Context(), p.from, p.to, true)
	if err != nil {
		p.Fatal(err)
	}
	return r
}

// found returns the stations (the doctor's checks) that are not good, one on each line.
func found(r *doctor.Report) (text string) {
	for _, s := range r.Stations {
		if s.State != doctor.Good {
			text += s.Name + ": " + s.What + "\n"
		}
	}
	return text
}

// spoilt is a fault on the path from the pod of n1 to the pod of n2.
type spoilt struct {
	name, spoil string
	silent      string // the agents on these hosts do not answer
	obstacle    string // beginning of the obstacle's text
	remedy      string // beginning of the remedy
	command     bool   // the remedy is a command, and after all commands the packet arrives
}

// check makes a fault, and checks what the doctor finds. At the end, both agents correct their
// nodes.
func (p *pair) check(tt spoilt) {
	p.Helper()
	p.silent = tt.silent
	setuptest.Run(p.T, "sh", "-ec", tt.spoil)
	r := p.walk()
	o := r.Obstacle()
	if o == nil || r.Answered {
		p.Errorf("%s: no obstacle\n%s", tt.name, found(r))
	} else if text := o.Name + ": " + o.What; !strings.HasPrefix(text, tt.obstacle) || !strings.HasPrefix(o.Remedy, tt.remedy) || o.Advice == tt.command {
		p.Errorf("%s:\n%s\n  remedy %q\nwant\n%s\n  remedy %q\nall:\n%s", tt.name, text, o.Remedy, tt.obstacle, tt.remedy, found(r))
	} else if tt.command {
		for _, s := range r.Stations { // as bvctl doctor --fix does
			if s.State == doctor.Bad && !s.Advice {
				setuptest.Run(p.T, "sh", "-ec", s.Remedy)
			}
		}
		if r := p.walk(); !r.Answered || !r.Healthy() {
			p.Errorf("%s: after %q:\n%s", tt.name, o.Remedy, found(r))
		}
	}
	p.silent = ""
	p.look()
}

// healthy checks that the packet arrives. want is the text of the stations that the doctor must
// find. The agents on the hosts in the parameter silent do not answer.
func (p *pair) healthy(name, silent, want string) {
	p.Helper()
	p.silent = silent
	r := p.walk()
	if got := found(r); !r.Answered || !r.Healthy() || !strings.HasPrefix(got, want) || strings.Count(got, "\n") != strings.Count(want, "\n") {
		p.Errorf("%s: answered %v, found\n%swant\n%s", name, r.Answered, got, want)
	}
	p.silent = ""
}

const (
	nearAgent, farAgent = "127.0.0.1", "172.30.0.12"

	noAgent = "node agent: bridgeveth-node does not answer on this host (connection refused), so nothing restores what it has set up\n"
	noFar   = "far end: the agent of n2 at 172.30.0.12 cannot be asked from here (connection refused), so run bvctl node there\n"
	start   = "start bridgeveth-node on this host"
)

// TestDoctorDirect checks what the doctor finds on a direct path (without a tunnel) to a pod of
// another node.
func TestDoctorDirect(t *testing.T) {
	t.Parallel()
	p := newPair(t, cluster.RoutingDirect)
	p.healthy("whole", "", "")
	p.healthy("far agent silent", farAgent, noFar)
	p.healthy("own agent silent", nearAgent, noAgent)
	const missing = "route of the host: the route to 10.244.2.0/24, the pods of n2, is missing, and the host has "
	for _, tt := range []spoilt{
		{"no route", "ip route del 10.244.2.0/24", "",
			missing + "only the default route to it, by uplink0", "ip route replace 10.244.2.0/24 via 172.30.0.12 dev uplink0 proto 97", true},
		{"no route, agent silent", "ip route del 10.244.2.0/24", nearAgent,
			"route of the host: 10.244.2.5 is the address of a pod, and the host has only the default route to it, by uplink0", start, false},
		{"route led elsewhere", "ip route replace 10.244.2.0/24 via 172.30.0.77 proto 97", "",
			missing + "only the route 10.244.2.0/24 via 172.30.0.77 dev uplink0 to it", "ip route replace 10.244.2.0/24 via 172.30.0.12 dev uplink0 proto 97", true},
		{"neighbour entry fixed", "ip neigh replace 172.30.0.12 lladdr 02:00:00:00:00:01 dev uplink0 nud permanent", "",
			"neighbour of the host: the neighbour entry for 172.30.0.12, on the way to the pod's node, is permanent and has MAC 02:00:00:00:00:01", "ip neigh del 172.30.0.12 dev uplink0", true},
		{"far node down", "ip neigh flush dev uplink0; ip -n n2 link set lan down", farAgent,
			"neighbour of the host: 172.30.0.12, on the way to the pod's node, does not answer requests for its MAC on uplink0", "check that this host is up", false},
	} {
		p.check(tt)
	}
	setuptest.In(t, p.farNS, "ip", "link", "set", "lan", "up")
	p.look()
	p.healthy("whole again", "", "")
	p.check(spoilt{"no route back", "ip -n n2 route del 10.244.1.0/24", "",
		"test packet: the request left the host, and no answer came back; 172.30.0.12, the pod's node, answers this host", "run bvctl doctor on the pod's node", false})

	setuptest.Run(t, "sh", "-ec", "ip route del 10.244.2.0/24; ip route add 10.244.2.0/24 via 172.30.0.77")
	p.check(spoilt{"another program's route", "true", "", "route of the host: packets to the pods of n2 follow the route 10.244.2.0/24 via 172.30.0.77 dev uplink0, which bridgeveth-node did not add",
		"ip -4 route del 10.244.2.0/24; bridgeveth-node then adds its own route", false})
	setuptest.Run(t, "sh", "-ec", "ip route del 10.244.2.0/24; ip route del default")
	p.look()
	p.check(spoilt{"no route at all", "ip route del 10.244.2.0/24", "", missing + "no route to it", "ip route replace 10.244.2.0/24 via 172.30.0.12 dev uplink0 proto 97", true})
	p.withoutAgent()
}

// withoutAgent checks that the doctor sends no request if no agent runs on the doctor's own host.
func (p *pair) withoutAgent() {
	p.Helper()
	if err := p.near.Remove(); err != nil {
		p.Fatal(err)
	}
	p.asked = nil
	r := p.walk()
	const want = "ip route add 10.244.2.0/24 via NODE"
	if o := r.Obstacle(); o == nil || !strings.HasPrefix(o.Remedy, want) || len(p.asked) > 0 {
		p.Errorf("without an agent: %v, asked %q", o, p.asked)
	}
}

// TestDoctorTunnel checks what the doctor finds on a path through the tunnel to a pod of another
// node.
func TestDoctorTunnel(t *testing.T) {
	t.Parallel()
	p := newPair(t, cluster.RoutingVXLAN)
	p.healthy("whole", "", "")
	p.healthy("both agents silent", nearAgent+farAgent, noAgent+strings.Replace(noFar, "n2", "the pod's node", 1))
	mac := cluster.MAC("n2")
	for _, tt := range []spoilt{
		{"no route", "ip route del 10.244.2.0/24", "", "route of the host: the route to 10.244.2.0/24, the pods of n2, is missing", "ip route replace 10.244.2.0/24 via 10.244.2.0 dev bvx0 onlink proto 97", true},
		{"no neighbour entry", "ip neigh del 10.244.2.0 dev bvx0", "", "neighbour entry of the tunnel: the neighbour entry for 10.244.2.0 on bvx0 is missing", "ip neigh replace 10.244.2.0 lladdr " + mac + " dev bvx0", true},
		{"no neighbour entry, agent silent", "ip neigh del 10.244.2.0 dev bvx0", nearAgent, "neighbour entry of the tunnel: the neighbour entry for 10.244.2.0 on bvx0 is missing", start, false},
		{"wrong neighbour entry", "ip neigh replace 10.244.2.0 lladdr 02:00:00:00:00:01 dev bvx0", "", "neighbour entry of the tunnel: the neighbour entry for 10.244.2.0 on bvx0 has MAC 02:00:00:00:00:01, which no node has", "ip neigh replace 10.244.2.0 lladdr " + mac + " dev bvx0", true},
		{"no forwarding entry", "bridge fdb del " + mac + " dev bvx0", "", "forwarding entry of the tunnel: the forwarding entry for " + mac + " on bvx0 is missing", "bridge fdb replace " + mac + " dev bvx0 dst 172.30.0.12", true},
		{"no forwarding entry, agent silent", "bridge fdb del " + mac + " dev bvx0", nearAgent, "forwarding entry of the tunnel: the forwarding entry for " + mac + " on bvx0 is missing", start, false},
		{"wrong forwarding entry", "bridge fdb replace " + mac + " dev bvx0 dst 172.30.0.77", "", "forwarding entry of the tunnel: the forwarding entry for " + mac + " on bvx0 leads to 172.30.0.77, which is not an InternalIP of n2", "bridge fdb replace " + mac + " dev bvx0 dst 172.30.0.12", true},
		{"no device", "ip link del bvx0", "", "tunnel: the VXLAN device bvx0 does not exist, so the host has only the default route to it, by uplink0", "bridgeveth-node restores it within 30 seconds", false},
		{"device down", "ip link set bvx0 down", nearAgent, "tunnel: the VXLAN device bvx0 is down", start, false},
		{"device without its address", "ip addr del 10.244.1.0/32 dev bvx0", "", "tunnel: the VXLAN device bvx0 has no IPv4 address", "bridgeveth-node restores it within 30 seconds", false},
		{"no route to the node", "ip route add unreachable 172.30.0.12", "", "route to the peer node: no route from 172.30.0.11 to 172.30.0.12: an unreachable route or rule drops the packet", "check ip -4 rule", false},
		{"UDP port closed", "ip route del unreachable 172.30.0.12; ip netns exec n2 nft 'add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c udp dport 4789 drop'", farAgent,
			"test packet: the request left the host, and no answer came back; 172.30.0.12, the pod's node, answers this host, but not through the tunnel", "check that firewalls between the nodes accept the UDP port of the tunnel", false},
	} {
		p.check(tt)
	}
	setuptest.In(t, p.farNS, "nft", "flush ruleset")
	p.healthy("whole again", "", "")
	for _, tt := range []struct{ name, spoil, want string }{
		{"MTU too large", "ip link set bvx0 mtu 1500", "MTU of the tunnel: bvx0 has MTU 1500, and uplink0 can send at most 1450 bytes of a packet in the tunnel\n"},
		{"MTU too small", "ip link set bvx0 mtu 1400", "MTU of the tunnel: bvx0 has MTU 1400, and pod has MTU 1450"},
	} {
		setuptest.Run(t, "sh", "-ec", tt.spoil)
		if r := p.walk(); !strings.HasPrefix(found(r), tt.want) || !r.Answered {
			t.Errorf("%s: want %s\n%s", tt.name, tt.want, found(r))
		}
		p.look()
	}

	// The far node does not know the near node, so it has no route back. Its agent must report the
	// missing route.
	p.far.Nodes = &objects{all: p.objectsNear.all[1:]}
	if err := p.farNS.Do(func() error { p.far.Look(); return nil }); err != nil {
		t.Fatal(err)
	}
	p.check(spoilt{"far node does not know this node", "true", "", "far end: n2 knows no node with 10.244.1.2 in its pod ranges", "run bvctl node on n2", false})
}
