package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

func init() { runtime.LockOSThread() } // tests change the network namespace of their threads

// machine is a node with one pod. Each of the two has its own network namespace.
type machine struct {
	cluster.Node
	ns, pod *setup.Namespace
	kernel  *Host
}

// lab has three nodes: n1 and n2 on one link, and n3 behind a router. The network namespace of the
// test is the router.
type lab []*machine

const (
	v4Net, v6Net = 1, 2 // families of the network between the nodes
	v4Pod, v6Pod = 4, 8 // families of the pods
)

func newLab(t *testing.T, families int) lab {
	setuptest.EnterHost(t)
	setuptest.SetSysctl(t, "ipv4/ip_forward", "1")
	setuptest.SetSysctl(t, "ipv6/conf/all/forwarding", "1")
	var nodes lab
	for i, lan := range []int{1, 1, 2} {
		n := i + 1
		m := &machine{Node: cluster.Node{Name: fmt.Sprintf("n%d", n)}, ns: setuptest.Container(t, fmt.Sprintf("n%d", n)), pod: setuptest.Container(t, fmt.Sprintf("pod%d", n))}
		bridge := fmt.Sprintf("lan%d", lan)
		if i == 0 || lan == 2 {
			setuptest.Run(t, "ip", "link", "add", bridge, "type", "bridge")
			setuptest.Run(t, "ip", "link", "set", bridge, "up")
			address(t, nil, bridge, families&v4Net != 0, fmt.Sprintf("172.3%d.0.1/24", lan))
			address(t, nil, bridge, families&v6Net != 0, fmt.Sprintf("fd00:%d::1/64", lan))
		}
		port := fmt.Sprintf("port%d", n)
		setuptest.Run(t, "ip", "link", "add", port, "master", bridge, "up", "type", "veth", "peer", "name", "eth0", "netns", m.Name)
		setuptest.In(t, m.ns, "ip", "link", "set", "eth0", "up")
		if families&v4Net != 0 {
			a := fmt.Sprintf("172.3%d.0.1%d", lan, n)
			address(t, m.ns, "eth0", true, a+"/24")
			setuptest.In(t, m.ns, "ip", "route", "add", "default", "via", fmt.Sprintf("172.3%d.0.1", lan))
			m.Addresses = append(m.Addresses, netip.MustParseAddr(a))
		}
		if families&v6Net != 0 {
			a := fmt.Sprintf("fd00:%d::1%d", lan, n)
			address(t, m.ns, "eth0", true, a+"/64")
			setuptest.In(t, m.ns, "ip", "-6", "route", "add", "default", "via", fmt.Sprintf("fd00:%d::1", lan))
			m.Addresses = append(m.Addresses, netip.MustParseAddr(a))
		}
		for key, value := range map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"} {
			if err := m.ns.Do(func() error { setuptest.SetSysctl(t, key, value); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		m.addPod(t, families, n)
		nodes = append(nodes, m)
	}
	return nodes
}

// addPod gives a node its pod ranges, and a pod with an address in each range. The link cni0 stands
// for the pods' bridge and has the gateway addresses. It is a veth link to the pod.
func (m *machine) addPod(t *testing.T, families, n int) {
	setuptest.In(t, m.ns, "ip", "link", "add", "cni0", "type", "veth", "peer", "name", "eth0", "netns", "pod"+m.Name[1:])
	setuptest.In(t, m.ns, "ip", "link", "set", "cni0", "up")
	setuptest.In(t, m.pod, "ip", "link", "set", "eth0", "up")
	if families&v4Pod != 0 {
		m.Ranges = append(m.Ranges, netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", n)))
		address(t, m.ns, "cni0", true, fmt.Sprintf("10.244.%d.1/24", n))
		address(t, m.pod, "eth0", true, fmt.Sprintf("10.244.%d.5/24", n))
		setuptest.In(t, m.pod, "ip", "route", "add", "default", "via", fmt.Sprintf("10.244.%d.1", n))
	}
	if families&v6Pod != 0 {
		m.Ranges = append(m.Ranges, netip.MustParsePrefix(fmt.Sprintf("fd10:%d::/64", n)))
		address(t, m.ns, "cni0", true, fmt.Sprintf("fd10:%d::1/64", n))
		address(t, m.pod, "eth0", true, fmt.Sprintf("fd10:%d::5/64", n))
		setuptest.In(t, m.pod, "ip", "-6", "route", "add", "default", "via", fmt.Sprintf("fd10:%d::1", n))
	}
	if err := m.ns.Do(func() (err error) { m.kernel, err = Open(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.kernel.Close)
}

// address adds an address to a link in the namespace ns. If wanted is false, it does nothing. A nil
// ns means the network namespace of the test.
func address(t *testing.T, ns *setup.Namespace, link string, wanted bool, a string) {
	if !wanted {
		return
	}
	args := []string{"addr", "add", a, "dev", link}
	if strings.Contains(a, ":") {
		args = append(args, "nodad")
	}
	if ns == nil {
		setuptest.Run(t, "ip", args...)
		return
	}
	setuptest.In(t, ns, "ip", args...)
}

func (l lab) nodes() (list []cluster.Node) {
	for _, m := range l {
		list = append(list, m.Node)
	}
	return list
}

// wanted returns the state that the machine needs in a cluster with these nodes.
func (m *machine) wanted(t *testing.T, nodes []cluster.Node, routing cluster.Routing) cluster.State {
	t.Helper()
	uplinks, locals, err := m.kernel.Links(m.Addresses, "cni0", cluster.TunnelLink)
	if err != nil {
		t.Fatal(err)
	}
	state, problems, ok := cluster.Wanted(m.Name, nodes, uplinks, locals, cluster.Settings{Routing: routing, VXLANPort: 4789})
	if !ok || len(problems) > 0 {
		t.Fatalf("%s: %v", m.Name, problems)
	}
	return state
}

// apply applies a state, and checks that a second Apply changes nothing.
func (m *machine) apply(t *testing.T, s cluster.State) (changes []string) {
	t.Helper()
	changes, err := m.kernel.Apply(s)
	if err != nil {
		t.Fatalf("%s: %v", m.Name, err)
	}
	if again, err := m.kernel.Apply(s); len(again) > 0 || err != nil {
		t.Errorf("%s: applied twice: %v, %v", m.Name, again, err)
	}
	return changes
}

// checkPackets checks that each pod and each node reaches every other pod. Pods send packets as
// large as their MTU.
func (l lab) checkPackets(t *testing.T, mtu int) {
	t.Helper()
	for _, from := range l {
		for _, to := range l {
			if from == to {
				continue
			}
			for _, r := range to.Ranges {
				pod, header := r.Addr().Next().Next().Next().Next().Next(), 28
				if pod.Is6() {
					header = 48
				}
				size := fmt.Sprint(mtu - header)
				setuptest.In(t, from.pod, "ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", size, pod.String())
				setuptest.In(t, from.ns, "ping", "-n", "-c", "1", "-W", "5", pod.String())
			}
		}
	}
}

// dump returns the routes, links, addresses and neighbour entries of a node as text. The text also
// contains objects that the agent did not make.
func (m *machine) dump(t *testing.T) (text string) {
	t.Helper()
	for _, args := range []string{"-4 route show table main", "-6 route show table main", "-o addr show scope global", "neigh show nud permanent", "-br link"} {
		text += "# " + args + "\n" + setuptest.In(t, m.ns, "ip", strings.Fields(args)...)
	}
	return text
}

func TestPackets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		families int
		routing  cluster.Routing
		mtu      int
		tunnel   bool
	}{
		{"IPv4, auto", v4Net | v4Pod, cluster.RoutingAuto, 1450, true},
		{"IPv4, vxlan", v4Net | v4Pod, cluster.RoutingVXLAN, 1450, true},
		{"both, auto", v4Net | v6Net | v4Pod | v6Pod, cluster.RoutingAuto, 1450, true},
		{"IPv6, auto", v6Net | v6Pod, cluster.RoutingAuto, 1430, true},
		{"IPv6, vxlan", v6Net | v6Pod, cluster.RoutingVXLAN, 1430, true},
		{"IPv4 pods over IPv6, auto", v6Net | v4Pod, cluster.RoutingAuto, 1430, true},
		{"IPv6 pods over IPv4, auto", v4Net | v6Pod, cluster.RoutingAuto, 1450, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes := newLab(t, tt.families)
			before := nodes[0].dump(t)
			for _, m := range nodes {
				s := m.wanted(t, nodes.nodes(), tt.routing)
				if s.MTU != tt.mtu || (s.Tunnel != nil) != tt.tunnel {
					t.Errorf("%s: MTU %d, tunnel %v", m.Name, s.MTU, s.Tunnel)
				}
				m.apply(t, s)
				if complete, err := m.kernel.Complete(); !complete || err != nil {
					t.Errorf("%s: not complete: %v", m.Name, err)
				}
			}
			nodes.checkPackets(t, tt.mtu)
			m := nodes[0]
			m.apply(t, cluster.State{})
			if diff := cmp.Diff(before, m.dump(t)); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
		})
	}
}

// TestDirect checks that two nodes on one link get routes to each other and no tunnel.
func TestDirect(t *testing.T) {
	nodes := newLab(t, v4Net|v6Net|v4Pod|v6Pod)[:2]
	for _, m := range nodes {
		m.apply(t, m.wanted(t, nodes.nodes(), cluster.RoutingDirect))
	}
	nodes.checkPackets(t, 1500)
	if links := setuptest.In(t, nodes[0].ns, "ip", "-br", "link"); strings.Contains(links, cluster.TunnelLink) {
		t.Errorf("a tunnel that nobody needs:\n%s", links)
	}
}

// TestMoved checks that the routes to a node change from direct to the tunnel and back, as for a node
// that moves to another link and returns.
func TestMoved(t *testing.T) {
	nodes := newLab(t, v4Net|v6Net|v4Pod|v6Pod)[:2]
	for _, tt := range []struct {
		routing cluster.Routing
		mtu     int
	}{{cluster.RoutingDirect, 1500}, {cluster.RoutingVXLAN, 1450}, {cluster.RoutingDirect, 1500}} {
		for _, m := range nodes {
			m.apply(t, m.wanted(t, nodes.nodes(), tt.routing))
		}
		nodes.checkPackets(t, tt.mtu)
	}
}

// TestLinks checks that neither the pods' bridge nor a VLAN link on it (cni0.5) counts as an
// uplink.
func TestLinks(t *testing.T) {
	m := newLab(t, v4Net|v4Pod)[0]
	setuptest.In(t, m.ns, "ip", "link", "add", "cni0.5", "type", "veth", "peer", "name", "docker0")
	setuptest.In(t, m.ns, "ip", "addr", "add", "10.244.1.200/32", "dev", "cni0.5")
	setuptest.In(t, m.ns, "ip", "addr", "add", "172.17.0.1/16", "dev", "docker0")
	uplinks, locals, err := m.kernel.Links(append(m.Addresses, netip.MustParseAddr("192.0.2.1")), "cni0", cluster.TunnelLink)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprint([]cluster.Uplink{{Address: m.Addresses[0], Link: "eth0", MTU: 1500, OnLink: []netip.Prefix{netip.MustParsePrefix("172.31.0.0/24")}}},
		[]cluster.Local{{Link: "eth0", Subnet: netip.MustParsePrefix("172.31.0.0/24")}, {Link: "docker0", Subnet: netip.MustParsePrefix("172.17.0.0/16")}})
	if got := fmt.Sprint(uplinks, locals); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestStale checks that Apply removes what an earlier Apply had set up for nodes that were then
// deleted, moved or given other ranges while the agent was down.
func TestStale(t *testing.T) {
	for _, routing := range []cluster.Routing{cluster.RoutingAuto, cluster.RoutingVXLAN} {
		t.Run(string(routing), func(t *testing.T) {
			nodes := newLab(t, v4Net|v4Pod)
			m := nodes[0]
			gone := cluster.Node{Name: "gone", Addresses: []netip.Addr{netip.MustParseAddr("172.31.0.77")}, Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.77.0/24")}}
			away := cluster.Node{Name: "away", Addresses: []netip.Addr{netip.MustParseAddr("172.32.0.78")}, Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.78.0/24")}}
			old := append(nodes.nodes(), gone, away)
			old[2].Addresses = []netip.Addr{netip.MustParseAddr("172.32.0.79")} // the address of n3 before it moved
			old[1].Ranges = []netip.Prefix{netip.MustParsePrefix("10.244.99.0/24")}
			m.apply(t, m.wanted(t, old, routing))
			for _, m := range nodes {
				m.apply(t, m.wanted(t, nodes.nodes(), routing))
			}
			nodes.checkPackets(t, 1450)
			text := m.dump(t) + setuptest.In(t, m.ns, "bridge", "fdb", "show", "dev", cluster.TunnelLink)
			for _, stale := range []string{"10.244.77.", "10.244.78.", "10.244.99.", "172.31.0.77", "172.32.0.78", "172.32.0.79"} {
				if strings.Contains(text, stale) {
					t.Errorf("%s is left:\n%s", stale, text)
				}
			}
		})
	}
}

// TestRestored checks that Apply restores each object after another program has deleted or changed
// it.
func TestRestored(t *testing.T) {
	nodes := newLab(t, v4Net|v4Pod)
	m := nodes[0]
	for _, m := range nodes {
		m.apply(t, m.wanted(t, nodes.nodes(), cluster.RoutingAuto))
	}
	s := m.wanted(t, nodes.nodes(), cluster.RoutingAuto)
	mac := cluster.MAC("n3")
	for _, tt := range []struct{ name, spoil, want string }{
		{"direct route", "ip route del 10.244.2.0/24", "add route 10.244.2.0/24 via 172.31.0.12 dev eth0"},
		{"route led elsewhere", "ip route replace 10.244.2.0/24 via 172.31.0.1 proto 97", "change route 10.244.2.0/24 via 172.31.0.12 dev eth0"},
		{"forwarding entry", "bridge fdb del " + mac + " dev bvx0", "add forwarding entry " + mac + " dst 172.32.0.13 dev bvx0"},
		{"forwarding entry led elsewhere", "bridge fdb replace " + mac + " dev bvx0 dst 172.31.0.99", "change forwarding entry " + mac + " dst 172.32.0.13 dev bvx0"},
		{"neighbour entry", "ip neigh del 10.244.3.0 dev bvx0", "add neighbour entry 10.244.3.0 lladdr " + mac + " dev bvx0"},
		{"MTU", "ip link set bvx0 mtu 1400", "set link bvx0 MTU 1450"},
		{"MAC", "ip link set bvx0 address 0e:00:00:00:00:01", "set link bvx0 MAC " + cluster.MAC("n1")},
		{"address", "ip addr del 10.244.1.0/32 dev bvx0", "add address 10.244.1.0/32 dev bvx0"},
		{"another address", "ip addr add 10.9.9.9/32 dev bvx0", "remove address 10.9.9.9/32 dev bvx0"},
		{"mark", "ip route del unreachable 10.244.1.0/24", "add route unreachable 10.244.1.0/24"},
		{"device down", "ip link set bvx0 down", "set link bvx0 up"},
		{"device", "ip link del bvx0", "add link bvx0"},
		{"another identifier", "ip link del bvx0; ip link add bvx0 group 97 type vxlan id 5 dstport 4789 local 172.31.0.11 nolearning", "remove link bvx0 with other parameters"},
		{"everything", "ip route flush proto 97; ip link del bvx0", "add link bvx0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			setuptest.In(t, m.ns, "sh", "-c", tt.spoil)
			if changes := m.apply(t, s); len(changes) == 0 || changes[0] != tt.want {
				t.Errorf("got %q, want %q first", changes, tt.want)
			}
		})
	}
	nodes.checkPackets(t, 1450)
}

// TestUnfinished checks that Apply completes a VXLAN device if the agent was killed directly after
// it had created the device. The kernel must not generate a link-local address for this device.
func TestUnfinished(t *testing.T) {
	nodes := newLab(t, v4Net|v4Pod)
	m := nodes[0]
	setuptest.In(t, m.ns, "ip", "link", "add", cluster.TunnelLink, "group", "97", "type", "vxlan", "id", "97", "dstport", "4789", "local", "172.31.0.11", "nolearning")
	m.apply(t, m.wanted(t, nodes.nodes(), cluster.RoutingVXLAN))
	if link := setuptest.In(t, m.ns, "ip", "-d", "link", "show", cluster.TunnelLink); !strings.Contains(link, "addrgenmode none") {
		t.Errorf("the kernel may generate an address:\n%s", link)
	}
	if addresses := setuptest.In(t, m.ns, "ip", "-o", "addr", "show", cluster.TunnelLink); strings.Contains(addresses, "fe80:") {
		t.Errorf("generated address:\n%s", addresses)
	}
}

// TestOthers checks that Apply keeps objects of other programs, even if they prevent it from adding
// the agent's objects.
func TestOthers(t *testing.T) {
	nodes := newLab(t, v4Net|v4Pod)
	m, s := nodes[0], nodes[0].wanted(t, nodes.nodes(), cluster.RoutingAuto)
	t.Run("route that leads the same way", func(t *testing.T) {
		setuptest.In(t, m.ns, "ip", "route", "add", "10.244.2.0/24", "via", "172.31.0.12")
		m.apply(t, s)
		m.apply(t, cluster.State{})
		if out := setuptest.In(t, m.ns, "ip", "route", "show", "10.244.2.0/24"); strings.TrimSpace(out) != "10.244.2.0/24 via 172.31.0.12 dev eth0" {
			t.Errorf("route is %q", out)
		}
		setuptest.In(t, m.ns, "ip", "route", "del", "10.244.2.0/24")
	})
	t.Run("route that leads elsewhere", func(t *testing.T) {
		setuptest.In(t, m.ns, "ip", "route", "add", "10.244.2.0/24", "via", "172.31.0.1")
		changes, err := m.kernel.Apply(s)
		if err == nil || !strings.Contains(err.Error(), "10.244.2.0/24 via 172.31.0.12 dev eth0: another route to this range exists") {
			t.Errorf("got %v", err)
		}
		if !slices.Contains(changes, "add route 10.244.3.0/24 via 10.244.3.0 dev bvx0") {
			t.Errorf("the other node was left out: %q", changes)
		}
		if complete, err := m.kernel.Complete(); complete || err != nil {
			t.Errorf("complete: %v, %v", complete, err)
		}
		setuptest.In(t, m.ns, "ip", "route", "del", "10.244.2.0/24")
		m.apply(t, cluster.State{})
	})
	t.Run("device of the same name", func(t *testing.T) {
		setuptest.In(t, m.ns, "ip", "link", "add", cluster.TunnelLink, "type", "vxlan", "id", "97", "dstport", "4789")
		if _, err := m.kernel.Apply(s); !errors.Is(err, ErrNotOwn) {
			t.Errorf("got %v", err)
		}
		m.apply(t, cluster.State{})
		setuptest.In(t, m.ns, "ip", "link", "del", cluster.TunnelLink)
	})
}

// TestNoVXLAN checks three results of Apply on a kernel without VXLAN: the error says that VXLAN is
// missing, the direct routes exist, and Complete returns false, so the node is not ready. The
// kernel that runs the test has VXLAN. Therefore strace(1) injects the error that a kernel returns
// for an unknown kind of link (rtnl_newlink in net/core/rtnetlink.c).
func TestNoVXLAN(t *testing.T) {
	state := cluster.State{
		Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		Routes: []cluster.Route{
			{Range: netip.MustParsePrefix("10.244.2.0/24"), Gateway: netip.MustParseAddr("172.30.0.12"), Link: "uplink0"},
			{Range: netip.MustParsePrefix("10.244.3.0/24"), Gateway: netip.MustParseAddr("10.244.3.0"), Link: cluster.TunnelLink, OnLink: true},
		},
		Tunnel: &cluster.Tunnel{Local: netip.MustParseAddr("172.30.0.11"), Port: 4789, MTU: 1450, MAC: cluster.MAC("n1")},
	}
	apply := func() error {
		runtime.LockOSThread() // strace counts the system calls of each thread separately
		host, err := Open()
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		_, err = host.Apply(state)
		if complete, failed := host.Complete(); complete != (err == nil) || failed != nil {
			t.Errorf("complete: %v, %v", complete, failed)
		}
		return err
	}
	const variable = "KERNEL_TEST_NO_VXLAN"
	if os.Getenv(variable) != "" {
		if err := apply(); err == nil || !strings.Contains(err.Error(), "VXLAN device bvx0: the kernel has no VXLAN (CONFIG_VXLAN, module vxlan); load the module, or use --routing direct or none") {
			t.Errorf("got %v", err)
		}
		return
	}
	setuptest.EnterHost(t)
	setuptest.Run(t, "ip", "link", "add", "uplink0", "up", "type", "bridge")
	setuptest.Run(t, "ip", "addr", "add", "172.30.0.11/24", "dev", "uplink0")
	t.Setenv(variable, "1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The first message of Apply looks up the VXLAN device, and the second message creates it.
	// strace makes the second message fail.
	out := setuptest.Run(t, "strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=sendto:error=EOPNOTSUPP:when=2", self, "-test.v", "-test.run", "^TestNoVXLAN$")
	if !strings.Contains(out, "--- PASS: TestNoVXLAN") {
		t.Fatal(out)
	}
	if routes := setuptest.Run(t, "ip", "-br", "route", "show", "proto", "97"); strings.TrimSpace(routes) != "10.244.2.0/24 via 172.30.0.12 dev uplink0" {
		t.Errorf("routes: %s", routes)
	}
	if err := apply(); err != nil { // as if the module had been loaded meanwhile
		t.Error(err)
	}
}

// TestNewNode checks which changes Apply makes for a new node. For a node on the same link, Apply
// adds only routes. For a node behind the tunnel, it also adds neighbour entries and a forwarding
// entry. A route that the agent adds must not wake the agent. A change of this route by another
// program must wake it.
func TestNewNode(t *testing.T) {
	nodes := newLab(t, v4Net|v6Net|v4Pod|v6Pod)
	m := nodes[0]
	events := m.events(t)
	for routing, want := range map[cluster.Routing]string{
		cluster.RoutingDirect: "[add route 10.244.2.0/24 via 172.31.0.12 dev eth0 add route fd10:2::/64 via fd00:1::12 dev eth0]",
		cluster.RoutingVXLAN: "[add forwarding entry MAC dst 172.31.0.12 dev bvx0 add neighbour entry 10.244.2.0 lladdr MAC dev bvx0 add neighbour entry fd10:2:: lladdr MAC dev bvx0 " +
			"add route 10.244.2.0/24 via 10.244.2.0 dev bvx0 add route fd10:2::/64 via fd10:2:: dev bvx0]",
	} {
		before := nodes.nodes()[:1]
		if routing == cluster.RoutingVXLAN {
			before = append(before, nodes[2].Node) // so that the tunnel exists before
		}
		m.apply(t, m.wanted(t, before, routing))
		events()
		changes := m.apply(t, m.wanted(t, append(before, nodes[1].Node), routing))
		if got := fmt.Sprint(changes); got != strings.ReplaceAll(want, "MAC", cluster.MAC("n2")) {
			t.Errorf("%s: %s, want %s", routing, got, want)
		}
		if woken := events(); woken != 0 {
			t.Errorf("%s: %d wake-ups by own changes", routing, woken)
		}
		for _, spoil := range []string{"ip route replace 10.244.2.0/24 via 172.31.0.77 proto 97", "ip -6 route replace fd10:2::/64 via fd00:1::77 proto 97", "ip route del 10.244.2.0/24", "ip link set eth0 mtu 1400"} {
			setuptest.In(t, m.ns, "sh", "-c", spoil)
			if woken := events(); woken == 0 {
				t.Errorf("%s: no wake-up after %s", routing, spoil)
			}
			setuptest.In(t, m.ns, "ip", "link", "set", "eth0", "mtu", "1500")
			m.apply(t, m.wanted(t, append(before, nodes[1].Node), routing))
			events()
		}
		m.apply(t, cluster.State{})
	}
}

// events subscribes to the changes that Watch follows. The returned function counts the changes
// since its last call, but only those that would wake the agent.
func (m *machine) events(t *testing.T) func() int {
	t.Helper()
	var s *nl.NetlinkSocket
	if err := m.ns.Do(func() (err error) { s, err = nl.Subscribe(unix.NETLINK_ROUTE, groups...); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	marks := 0
	return func() (woken int) {
		t.Helper()
		marks++
		mark := netip.AddrFrom4([4]byte{10, 99, 99, byte(marks)}) // the kernel reports this address after all earlier changes
		setuptest.In(t, m.ns, "ip", "addr", "add", mark.String()+"/32", "dev", "lo")
		for {
			messages, _, err := s.Receive()
			if err != nil {
				t.Fatal(err)
			}
			for _, change := range messages {
				switch {
				case change.Header.Type == unix.RTM_NEWADDR && bytes.Contains(change.Data, mark.AsSlice()):
					return woken
				case change.Header.Type == unix.RTM_NEWROUTE && nl.DeserializeRtMsg(change.Data).Table == unix.RT_TABLE_LOCAL: // the route to an earlier mark
				case matters(change):
					woken++
				}
			}
		}
	}
}
