package cnitool

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// publishing returns conf with host ports, as a runtime passes them to a plugin.
func publishing(conf object, mappings ...object) object {
	return conf.with(object{"runtimeConfig": object{"portMappings": mappings}})
}

// These are the servers and the client of most tests.
var serve, listen, ask = harness.Serve, harness.Listen, harness.Ask

// patience is how long a client waits for an answer.
const patience = harness.Patience

// dial opens a connection, which is closed at the end of the test.
func dial(t testing.TB, from *setup.Namespace, network, address string) (conn net.Conn) {
	t.Helper()
	err := from.Do(func() (err error) {
		conn, err = net.DialTimeout(network, address, patience)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestHostPortPaths checks that a container's host ports are reachable from everywhere, although
// the policy of FORWARD is DROP. It also checks the source address that the container sees.
func TestHostPortPaths(t *testing.T) {
	t.Parallel()
	for _, keys := range []object{{"ipMasq": true}, {"ipMasq": false}, {"ipMasq": true, "masqExclude": []string{"10.0.0.0/8", "fd00::/8"}}} {
		t.Run(fmt.Sprint(keys), func(t *testing.T) {
			t.Parallel()
			conf := dual.with(keys)
			n := newNode(t, conf, "nft", "legacy")
			outside := n.outside(false)
			c := n.containers(2)
			server, sibling := c[0], c[1]
			before := setuptest.Dump(t)
			serve(t, server, 80)
			published := publishing(conf, object{"hostPort": 8080, "containerPort": 80}, object{"HostPort": 8080, "ContainerPort": 80, "Protocol": "UDP", "HostIP": ""})
			paths := []struct {
				name string
				from *setup.Namespace
				to   string
				want string
			}{
				{"outside", outside, "192.0.2.1", "192.0.2.2"}, {"outside", outside, "2001:db8::1", "2001:db8::2"},
				{"outside to the gateway", outside, "10.88.0.1", ""},
				{"host", n.Namespace, "192.0.2.1", "192.0.2.1"}, {"host", n.Namespace, "2001:db8::1", "2001:db8::1"},
				{"host to the gateway", n.Namespace, "10.88.0.1", "10.88.0.1"}, {"host to the gateway", n.Namespace, "fd88::1", "fd88::1"},
				{"localhost", n.Namespace, "127.0.0.1", "10.88.0.1"}, {"localhost", n.Namespace, "127.9.9.9", "10.88.0.1"},
				{"localhost", n.Namespace, "::1", ""}, // packets from ::1 cannot leave the host
				{"itself", server, "192.0.2.1", "10.88.0.1"}, {"itself", server, "2001:db8::1", "fd88::1"},
				{"itself by the gateway", server, "10.88.0.1", "10.88.0.1"}, {"itself by the gateway", server, "fd88::1", "fd88::1"},
				{"sibling", sibling, "192.0.2.1", "10.88.0.1"}, {"sibling", sibling, "2001:db8::1", "fd88::1"},
				{"sibling, past the host", sibling, "10.88.0.2", ""}, // the container itself has no port 8080
			}
			on("ADD", 2, conf).run(t).ok(t)
			on("ADD", 1, conf).run(t).ok(t)
			for _, p := range paths {
				if got := ask(t, p.from, "tcp", p.to, 8080); got != "" {
					t.Errorf("without host ports: %s to %s: answered %s", p.name, p.to, got)
				}
			}
			on("DEL", 1, conf).run(t).ok(t)
			added := on("ADD", 1, published).run(t).ok(t)
			on("CHECK", 1, published.with(object{"prevResult": json.RawMessage(added.stdout)})).run(t).ok(t)
			for _, p := range paths {
				for _, network := range []string{"tcp", "udp"} {
					got := ask(t, p.from, network, p.to, 8080)
					for tries := 0; tries < 4 && got == "" && p.want != ""; tries++ { // a busy host takes longer than patience
						got = ask(t, p.from, network, p.to, 8080)
					}
					if got != p.want {
						t.Errorf("%s %s to %s: got %q, want %q", network, p.name, p.to, got, p.want)
					}
				}
			}
			serve(t, outside, 8080) // packets to the same port of another host are not redirected
			for _, to := range []string{"192.0.2.2", "2001:db8::2"} {
				want := map[string]string{"192.0.2.2": "192.0.2.1", "2001:db8::2": "2001:db8::1"}[to]
				if keys["ipMasq"] == false {
					want = "" // there is no route back
				}
				if got := ask(t, sibling, "tcp", to, 8080); got != want {
					t.Errorf("sibling to port 8080 of %s: got %q, want %q", to, got, want)
				}
			}
			on("DEL", 1, published).run(t).ok(t)
			on("DEL", 2, conf).run(t).ok(t)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}

// TestHostPortAddress checks host ports that are published on one address of the host only, or for
// one IP family only.
func TestHostPortAddress(t *testing.T) {
	t.Parallel()
	n := newNode(t, dual, "nft")
	outside := n.outside(false)
	setuptest.Run(t, "ip", "addr", "add", "192.0.2.9/24", "dev", "uplink")
	c := n.containers(1)
	serve(t, c[0], 80)
	conf := publishing(dual,
		object{"hostPort": 8081, "containerPort": 80, "hostIP": "192.0.2.9"},
		object{"hostPort": 8082, "containerPort": 80, "hostIP": "0.0.0.0"},
		object{"hostPort": 8083, "containerPort": 80, "hostIP": "::"},
		object{"hostPort": 8084, "containerPort": 80, "hostIP": "127.0.0.1"})
	on("ADD", 1, conf).run(t).ok(t)
	for _, tt := range []struct {
		from *setup.Namespace
		to   string
		port int
		want bool
	}{
		{outside, "192.0.2.9", 8081, true}, {outside, "192.0.2.1", 8081, false}, {outside, "2001:db8::1", 8081, false}, {n.Namespace, "192.0.2.9", 8081, true},
		{outside, "192.0.2.9", 8082, true}, {outside, "192.0.2.1", 8082, true}, {outside, "2001:db8::1", 8082, false},
		{outside, "192.0.2.1", 8083, false}, {outside, "2001:db8::1", 8083, true},
		{outside, "192.0.2.1", 8084, false}, {n.Namespace, "127.0.0.1", 8084, true}, {n.Namespace, "192.0.2.1", 8084, false},
	} {
		if got := ask(t, tt.from, "tcp", tt.to, tt.port) != ""; got != tt.want {
			t.Errorf("from %q to %s, port %d: %v, want %v", tt.from.Path, tt.to, tt.port, got, tt.want)
		}
	}
	on("DEL", 1, conf).run(t).ok(t)
}

// TestHostPortTaken requests host ports that another container already has, in each form in which
// two requests can overlap. It checks that ADD fails, names the other container, and leaves
// nothing.
func TestHostPortTaken(t *testing.T) {
	t.Parallel()
	n := newNode(t, dual, "nft")
	n.containers(2)
	first := publishing(dual, object{"hostPort": 8080, "containerPort": 80}, object{"hostPort": 9090, "containerPort": 90, "hostIP": "192.0.2.1", "protocol": "udp"})
	on("ADD", 1, first).run(t).ok(t)
	before := setuptest.Dump(t)
	for _, tt := range []struct {
		mapping object
		want    string
	}{
		{object{"hostPort": 8080, "containerPort": 1}, "host port tcp *:8080 is taken by container c1, interface eth0, of network net"},
		{object{"hostPort": 8080, "containerPort": 1, "hostIP": "192.0.2.1"}, "host port tcp *:8080 is taken by container c1"},
		{object{"hostPort": 8080, "containerPort": 1, "hostIP": "fd00::1"}, "host port tcp *:8080 is taken by container c1"},
		{object{"hostPort": 9090, "containerPort": 1, "protocol": "udp"}, "host port udp 192.0.2.1:9090 is taken by container c1"},
		{object{"hostPort": 9090, "containerPort": 1, "protocol": "udp", "hostIP": "192.0.2.1"}, "host port udp 192.0.2.1:9090 is taken by container c1"},
		{object{"hostPort": 8080, "containerPort": 80, "protocol": "icmp"}, `runtimeConfig.portMappings[1].protocol: "icmp" is none of tcp, udp, sctp`},
		{object{"hostPort": 70000, "containerPort": 80}, "runtimeConfig.portMappings[1].hostPort: 70000 is no port"},
		{object{"hostPort": 1, "containerPort": 0}, "runtimeConfig.portMappings[1].containerPort: 0 is no port"},
		{object{"hostPort": 1, "containerPort": 1, "hostIP": "here"}, `runtimeConfig.portMappings[1].hostIP: "here" is no IP address`},
		{object{"hostPort": 7000, "containerPort": 1}, "runtimeConfig.portMappings[1]: host port tcp *:7000 is listed twice, first as tcp *:7000"},
		{object{"hostPort": 7000, "containerPort": 2}, "runtimeConfig.portMappings[1]: host port tcp *:7000 is listed twice"},
		{object{"hostPort": 7000, "containerPort": 1, "hostIP": "0.0.0.0"}, "runtimeConfig.portMappings[1]: host port tcp *:7000 is listed twice"},
	} {
		second := publishing(dual, object{"hostPort": 7000, "containerPort": 1}, tt.mapping)
		f := on("ADD", 2, second).run(t).failed(t)
		if want := map[bool]uint{true: 101, false: 7}[strings.Contains(tt.want, "taken")]; f.Code != want || !strings.Contains(f.Msg, tt.want) {
			t.Errorf("got %+v, want code %d, %q", f, want, tt.want)
		}
		if !setuptest.Same(t, before, "a failed ADD left traces") {
			t.FailNow()
		}
		on("DEL", 2, second).run(t).ok(t) // runtimes call DEL after a failed ADD
		if !setuptest.Same(t, before, "its DEL took what is another's") {
			t.FailNow()
		}
	}
	for _, mapping := range []object{
		{"hostPort": 8080, "containerPort": 80, "protocol": "udp"}, {"hostPort": 9090, "containerPort": 80}, {"hostPort": 9090, "containerPort": 80, "protocol": "udp", "hostIP": "192.0.2.7"},
	} {
		other := publishing(dual, mapping)
		on("ADD", 2, other).run(t).ok(t)
		on("DEL", 2, other).run(t).ok(t)
	}

	apart := publishing(dual, object{"hostPort": 7000, "containerPort": 1, "hostIP": "0.0.0.0"}, object{"hostPort": 7000, "containerPort": 2, "hostIP": "::"},
		object{"hostPort": 7000, "containerPort": 3, "protocol": "udp", "hostIP": "192.0.2.1"}, object{"hostPort": 7000, "containerPort": 4, "protocol": "udp", "hostIP": "192.0.2.2"})
	on("ADD", 2, apart).run(t).ok(t)
	on("DEL", 2, apart).run(t).ok(t)

	// A container may publish a host port both on all addresses and on one address, with different
	// container ports. The host port on one address takes precedence.
	both := publishing(dual, object{"hostPort": 6000, "containerPort": 80}, object{"hostPort": 6000, "containerPort": 90, "hostIP": "192.0.2.1"})
	on("CHECK", 2, both.with(object{"prevResult": json.RawMessage(on("ADD", 2, both).run(t).ok(t).stdout)})).run(t).ok(t)
	on("DEL", 2, both).run(t).ok(t)

	// A container whose bridge port is gone no longer holds its host ports.
	setuptest.Run(t, "ip", "link", "delete", setup.Attachment{Network: "net", Container: "c1", Interface: "eth0"}.Port())
	on("ADD", 2, publishing(dual, object{"hostPort": 8080, "containerPort": 80}, object{"hostPort": 8080, "containerPort": 90, "hostIP": "192.0.2.1"})).run(t).ok(t)
}

// TestHostPortAfterFlush deletes the map of host ports while a container has a host port. It checks
// that the ADD of another container restores the host port of the first container, and does not give
// it to the other container.
func TestHostPortAfterFlush(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, spoil string }{
		{"ruleset flushed", "nft flush ruleset"},
		{"our tables deleted", "nft delete table ip bridgeveth; nft delete table ip6 bridgeveth"},
		{"maps deleted", "for f in ip ip6; do for c in prerouting locally hostports; do nft flush chain $f bridgeveth $c; done; nft delete map $f bridgeveth ports; done"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, dual.with(object{"capabilities": object{"portMappings": true}}), "nft")
			outside := n.outside(false)
			c := n.containers(3)
			n.env = []string{`CAP_ARGS={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}`}
			n.must("add", c[0])
			serve(t, c[0], 80)
			setuptest.Run(t, "sh", "-ec", tt.spoil)
			if got := ask(t, outside, "tcp", "192.0.2.1", 8080); got != "" {
				t.Fatal("the host port still works: the test proves nothing")
			}
			if err := n.cnitool("add", c[1]); err == nil || !strings.Contains(err.Error(), "host port tcp *:8080 is taken by container") {
				t.Errorf("another container got the host port: %v", err)
			}
			for _, to := range []string{"192.0.2.1", "2001:db8::1"} {
				if got := ask(t, outside, "tcp", to, 8080); got == "" {
					t.Errorf("no answer on host port 8080 of %s after another ADD", to)
				}
			}
			n.must("del", c[0])
			n.must("add", c[2])
		})
	}
}

// TestHostPortsRemoved checks that each form of DEL and GC removes a container's host ports.
func TestHostPortsRemoved(t *testing.T) {
	t.Parallel()
	conf := publishing(dual, object{"hostPort": 8080, "containerPort": 80}, object{"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "192.0.2.1"})
	for _, tt := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"as it was added", func(t *testing.T) { on("DEL", 1, conf).run(t).ok(t) }},
		{"without its ports", func(t *testing.T) { on("DEL", 1, dual).run(t).ok(t) }},
		{"without a namespace", func(t *testing.T) {
			d := on("DEL", 1, dual)
			d.netns = ""
			d.run(t).ok(t)
		}},
		{"by GC", func(t *testing.T) {
			valid := []object{{"containerID": "c2", "ifname": "eth0"}}
			call{verb: "GC", conf: dual.with(object{"cni.dev/valid-attachments": valid})}.run(t).ok(t)
		}},
		{"by GC, when its link is gone", func(t *testing.T) {
			setuptest.Run(t, "ip", "link", "delete", setup.Attachment{Network: "net", Container: "c1", Interface: "eth0"}.Port())
			valid := []object{{"containerID": "c2", "ifname": "eth0"}}
			call{verb: "GC", conf: dual.with(object{"cni.dev/valid-attachments": valid})}.run(t).ok(t)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, dual, "nft")
			n.containers(2)
			other := publishing(dual, object{"hostPort": 7000, "containerPort": 80})
			on("ADD", 2, other).run(t).ok(t)
			before := setuptest.Dump(t)
			on("ADD", 1, conf).run(t).ok(t)
			if maps := setuptest.Run(t, "nft", "list", "ruleset"); strings.Count(maps, "/c1/eth0") != 3 {
				t.Errorf("want three elements of c1:\n%s", maps)
			}
			tt.do(t)
			setuptest.Same(t, before, "it left traces")
		})
	}
}

// TestStaleFlows sends UDP packets of one connection to a host port, while another container takes
// over the host port. It checks that the packets reach the new container. A stale conntrack entry
// would send them to the old container.
func TestStaleFlows(t *testing.T) {
	t.Parallel()
	for name, zone := range map[string]string{
		"no zone": "", "a zone": "ct zone set 7", "a zone of one direction": "ct original zone set 7",
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); testStaleFlows(t, zone) })
	}
}

// testStaleFlows is TestStaleFlows on a host that puts packets from outside into a conntrack zone, if
// the rule zone is not empty.
func testStaleFlows(t *testing.T, zone string) {
	n := newNode(t, single, "nft")
	if zone != "" {
		setuptest.Run(t, "nft", `table ip zones { chain prerouting { type filter hook prerouting priority raw; iifname { "uplink", "br0" } `+zone+`; }; chain output { type filter hook output priority raw; `+zone+`; }; }`)
	}
	outside := n.outside(false)
	c := n.containers(2)
	serve(t, c[1], 80)
	conf := publishing(single, object{"hostPort": 5353, "containerPort": 80, "protocol": "udp"})
	conn := dial(t, outside, "udp", "192.0.2.1:5353")
	answers := func() bool {
		_, _ = conn.Write([]byte("hello")) // fails if the port is closed
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		count, _ := conn.Read(make([]byte, 100))
		return count > 0
	}
	answers() // these packets go to a closed port of the host, and make a conntrack entry without redirection
	on("ADD", 1, conf).run(t).ok(t)
	answers() // these packets go to a closed port of the first container
	on("DEL", 1, conf).run(t).ok(t)
	on("ADD", 2, conf).run(t).ok(t)
	if first := answers(); !first && !answers() { // the first packet may be lost while the kernel sends an ARP request
		t.Error("packets still go to the old container")
	}
}

// TestThousandsOfHostPorts checks an ADD with very many host ports. The request and the answers are
// larger than the default buffers of a netlink socket.
func TestThousandsOfHostPorts(t *testing.T) {
	t.Parallel()
	var mappings []object
	for port := range 3000 {
		mappings = append(mappings, object{"hostPort": 10000 + port, "containerPort": 80})
	}
	conf := publishing(dual, mappings...)
	newNode(t, conf, "nft").containers(2)
	published := func() int {
		return strings.Count(setuptest.Run(t, "nft", "list", "map", "ip", "bridgeveth", "ports"), "comment")
	}
	other := on("ADD", 2, publishing(dual, object{"hostPort": 9000, "containerPort": 80}))
	other.run(t).ok(t)
	on("ADD", 1, conf).run(t).ok(t)
	if n := published(); n != 3001 {
		t.Errorf("%d ports are published, want 3001", n)
	}
	on("DEL", 1, conf).run(t).ok(t)
	if n := published(); n != 1 {
		t.Errorf("%d ports are published after DEL, want 1", n)
	}
}
