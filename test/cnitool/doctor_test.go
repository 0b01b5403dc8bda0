package cnitool

import (
	"cmp"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// diagnosis is the JSON output of bvctl doctor.
type diagnosis []struct {
	From, To string
	Answered bool
	Stations []struct{ Name, State, What, Remedy string }
	Obstacle *struct {
		Name, What, Remedy string
		Advice             bool
	}
}

// doctor runs bvctl doctor, and returns its JSON output and its exit status.
func doctor(t testing.TB, args ...string) (d diagnosis, status int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(programs, "bvctl"), append([]string{"--conf-dir", "/run/net.d", "doctor", "-o", "json"}, args...)...)
	var trouble strings.Builder
	cmd.Stderr = &trouble
	out, err := cmd.Output()
	if status = cmd.ProcessState.ExitCode(); status > 1 {
		t.Fatalf("bvctl doctor %v: %v: %s", args, err, trouble.String())
	}
	if err := json.Unmarshal(out, &d); err != nil || strings.Contains(string(out), `"to": ""`) {
		t.Fatalf("%v: %s", err, out)
	}
	return d, status
}

// obstacle returns the text of the first obstacle. It replaces the container IDs of cnitool by the
// short names c1, c2 and c3.
func (d diagnosis) obstacle() string {
	for _, r := range d {
		if r.Obstacle != nil {
			said := r.Obstacle.Name + ": " + r.Obstacle.What
			for _, c := range []string{"c1", "c2", "c3"} {
				said = strings.ReplaceAll(said, containerID("/run/netns/"+c), c)
			}
			return said
		}
	}
	return ""
}

// containerID returns the container ID that cnitool uses for a namespace.
func containerID(path string) string {
	id := sha512.Sum512([]byte(path))
	return fmt.Sprintf("cnitool-%x", id[:10])
}

// portNameOf returns the name of the bridge port of a container's eth0.
func portNameOf(c *setup.Namespace) string {
	return setup.Attachment{Network: "net", Container: containerID(c.Path), Interface: "eth0"}.Port()
}

// TestDoctor causes one fault at a time on a working node, and runs the doctor for a path that
// the fault blocks. It checks that the doctor names this fault. If the doctor prints a command
// that fixes the fault, --fix runs the command, and packets pass afterwards.
func TestDoctor(t *testing.T) {
	t.Parallel()
	ip := func(i string) string { return "nsenter --net=/run/netns/c" + i + " " }
	port := func(n string) string {
		return "$(ip -o link show master br0 | sed -n '" + n + "s/^[0-9]*: \\([^@:]*\\).*/\\1/p')"
	}
	for _, tt := range []struct {
		name   string
		keys   object
		spoil  string
		to     string // "" means c2
		want   string // part of the obstacle's text
		fixed  bool   // --fix fixes the fault
		advice string // part of the remedy's text
	}{
		{"policy DROP", object{"forward": "none"}, "", "", "dropped by chain FORWARD of table ip filter: policy drop", false, `"forward": "auto"`},
		{"policy DROP in iptables-legacy", object{"forward": "none"}, "iptables -P FORWARD ACCEPT; iptables-legacy -P FORWARD DROP", "", "dropped by iptables-legacy, policy DROP of FORWARD", false, ""},
		{"our rules flushed", nil, "iptables -F FORWARD", "", "chain FORWARD of table ip filter: policy drop", true, `bvctl repair`},
		{"trailing REJECT", object{"forward": "none"}, "iptables -P FORWARD ACCEPT; iptables -A FORWARD -j REJECT", "", "dropped by chain FORWARD of table ip filter: counter reject", false, ""},
		{"a rule of iptables-legacy", nil, "iptables-legacy -P FORWARD ACCEPT; iptables-legacy -I FORWARD -s 10.88.0.2 -j DROP", "", "-A FORWARD -s 10.88.0.2/32 -j DROP", true, ""},
		{"the administrator's DROP", nil, "iptables -N DOCKER-USER; iptables -I FORWARD -j DOCKER-USER; iptables -A DOCKER-USER -d 10.88.0.3 -j DROP", "", "dropped by chain DOCKER-USER of table ip filter: ip daddr 10.88.0.3", false, ""},
		{"an unknown table", nil, "nft add table inet mine; nft add chain inet mine fw '{ type filter hook forward priority 10; policy drop; }'", "", "dropped by chain fw of table inet mine: policy drop", false, ""},
		{"an unknown rule", nil, "nft add table inet mine; nft add chain inet mine fw '{ type filter hook forward priority 10; }'; nft add rule inet mine fw meta l4proto icmp drop", "", "dropped by chain fw of table inet mine: meta l4proto icmp drop # handle", false, ""},
		{"a hundred rules ahead of the one that drops", nil, "nft add table inet mine; nft add chain inet mine fw '{ type filter hook forward priority 10; }'; for i in $(seq 100); do echo add rule inet mine fw meta l4proto icmp counter; done | nft -f -; nft add rule inet mine fw meta l4proto icmp drop", "", "dropped by chain fw of table inet mine: meta l4proto icmp drop # handle", false, ""},
		{"others' packets between the two", nil, "iptables -A BRIDGEVETH-ADMIN -p icmp -j DROP; timeout 6 " + ip("1") + "bash -c 'while :; do echo >/dev/udp/10.88.0.3/9; done' >/dev/null 2>&1 &", "", "dropped by chain BRIDGEVETH-ADMIN of table ip filter: ", false, ""},
		{"a table of the bridge family", nil, "nft add table bridge mine; nft add chain bridge mine fw '{ type filter hook prerouting priority 0; policy drop; }'", "", "dropped by chain fw of table bridge mine: policy drop", false, ""},
		{"a rule in the container", nil, ip("2") + "nft add table ip mine; " + ip("2") + "nft add chain ip mine in '{ type filter hook input priority 0; policy drop; }'", "", "dropped by chain in of table ip mine in the container's own namespace: policy drop", false, ""},
		{"masquerade flushed", nil, "nft flush chain ip bridgeveth postrouting", "192.0.2.2", "changed since ADD (c1): masquerade of 10.88.0.0/24 behind br0: missing", true, ""},
		{"no masquerade, no route back", object{"ipMasq": false}, "", "192.0.2.2", "return path: packets leave the host with the source address 10.88.0.2, so 192.0.2.2 needs a route back to it", false, `give 192.0.2.2 a route to 10.88.0.2`},
		{"no default route", nil, ip("1") + "ip route del default", "192.0.2.2", "route of c1: no route to 192.0.2.2", true, ""},
		{"wrong gateway", nil, ip("1") + "ip route replace default via 10.88.0.200", "192.0.2.2", "route of c1: via 10.88.0.200, which no host has; ADD gave the container the route 0.0.0.0/0 via 10.88.0.1", true, ""},
		{"a blackhole in the container", nil, ip("1") + "ip route add blackhole 192.0.2.2", "192.0.2.2", "route of c1: ", false, ""},
		{"gateway's address gone", nil, "ip addr del 10.88.0.1/24 dev br0", "192.0.2.2", "via 10.88.0.1, which no host has: the address is missing on bridge br0", true, ""},
		{"duplicate address", nil, ip("3") + "ip addr add 10.88.0.3/24 dev eth0", "", "c3 has 10.88.0.3 too", false, ""},
		{"duplicate address on the host", nil, "ip addr add 10.88.0.3/32 dev br0", "", "the host has 10.88.0.3 too", false, ""},
		{"wrong prefix", nil, ip("1") + "sh -c 'ip addr flush dev eth0; ip addr add 10.88.0.2/31 dev eth0'", "/run/netns/c3", "address of c1: the address is 10.88.0.2/31 instead of 10.88.0.2/24", true, ""},
		{"address gone", nil, ip("2") + "ip addr del 10.88.0.3/24 dev eth0", "", "address of c2: eth0 does not have 10.88.0.3", true, ""},
		{"reverse path filter", nil, "echo 1 >/proc/sys/net/ipv4/conf/br0/rp_filter; ip route add 10.88.0.2/32 dev uplink", "192.0.2.2", "rp_filter on br0 drops packets from 10.88.0.2", false, ""},
		{"another route on the host", nil, "ip route add 10.88.0.2/32 dev uplink", "192.0.2.2", "return path: answers to 10.88.0.2 leave by uplink instead of bridge br0", false, ""},
		{"forwarding off", nil, "echo 0 >/proc/sys/net/ipv4/ip_forward", "192.0.2.2", "forwarding: the host does not forward IPv4 packets: net/ipv4/ip_forward is 0", true, ""},
		{"no route on the host", nil, "", "198.51.100.7", "route of the host: no route to 198.51.100.7: the routing tables have none", false, ""},
		{"a prohibited route", nil, "ip route add prohibit 192.0.2.2", "192.0.2.2", "route of the host: ", false, `check ip -4 rule`},
		{"the container's link down", nil, ip("2") + "ip link set eth0 down", "", "interface of c2: eth0 is down", true, ""},
		{"port down", nil, "ip link set " + port("1") + " down", "", " is down", true, ""},
		{"port off the bridge", nil, "ip link set " + port("1") + " nomaster", "", "is on no bridge; it belongs on br0", true, ""},
		{"bridge down", nil, "ip link set br0 down", "", "bridge br0: the bridge is down", true, ""},
		{"port isolated", nil, "ip link set " + port("1") + " type bridge_slave isolated on; ip link set " + port("2") + " type bridge_slave isolated on", "", "isolation: ports", true, ""},
		{"spoof filter", object{"macspoofchk": true}, ip("1") + "ip link set eth0 address 02:00:00:00:00:09; " + ip("1") + "ip neigh replace 10.88.0.3 lladdr 0a:58:0a:58:00:03 dev eth0 nud permanent", "", "dropped by chain guard_mac of table bridge bridgeveth", false, ""},
		{"another MAC", nil, ip("1") + "ip link set eth0 address 02:00:00:00:00:09", "", "changed since ADD (c1): MAC of eth0: is 02:00:00:00:00:09", false, ""},
		{"wrong neighbour", nil, ip("1") + "ip neigh replace 10.88.0.3 lladdr 02:00:00:00:00:77 dev eth0 nud permanent", "", "neighbour of c1: the neighbour entry for 10.88.0.3 has MAC 02:00:00:00:00:77; the MAC of 10.88.0.3 is 0a:58:0a:58:00:03", true, ""},
		{"MTU black hole", nil, "ip link set uplink mtu 1400; nft add table ip hole; nft add chain ip hole out '{ type filter hook output priority 0; }'; nft add rule ip hole out icmp type destination-unreachable drop", "192.0.2.2", "full-size packets: packets of more than", true, ""},
		{"MTU of a port", nil, "ip link set " + port("2") + " mtu 1300", "", "full-size packets: packets of more than 1300 bytes are lost", true, ""},
		{"different MTUs of the ports", nil, ip("2") + "ip link set eth0 mtu 1300; ip link set " + port("2") + " mtu 1300", "", "full-size packets: packets of more than 1300 bytes are lost", true, ""},
		{"pings ignored", nil, ip("2") + "sh -c 'echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all'", "", "c2 does not answer pings", true, ""},
		{"no such host outside", nil, "", "192.0.2.77", "test packet: the request left the host, and no answer came back", false, ""},
		{"a counter of others", object{}, "iptables-legacy -A INPUT -s 192.0.2.2 -j DROP; " + programs + "/bvctl --conf-dir /run/net.d repair; timeout 8 nsenter --net=/run/netns/outside ping -q -i 0.05 192.0.2.1 >/dev/null 2>&1 &", "192.0.2.77", "test packet: the request left the host, and no answer came back", false, ""},
		{"a machine on the bridge", object{}, "ip link add tap0 type veth peer name eth1 netns outside; ip link set tap0 master br0 up; ip -n outside addr add 10.88.0.50/24 dev eth1; ip -n outside link set eth1 up; " + ip("1") + "ip link set eth0 down", "10.88.0.50", "interface of c1: eth0 is down", true, ""},
		{"the gateway ignores pings", nil, "echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all", "10.88.0.1", "the host does not answer pings", true, ""},
		{"the bridge does not answer ARP", nil, "echo 8 >/proc/sys/net/ipv4/conf/br0/arp_ignore; " + ip("1") + "ip neigh flush dev eth0", "10.88.0.1", "ARP of the host: br0 does not answer ARP requests", true, ""},
		{"NOARP", nil, ip("2") + "ip link set eth0 arp off", "", "ARP of c2: eth0 neither sends nor answers ARP requests", true, ""},
		{"wrong neighbour entry on the host", nil, "ip neigh replace 10.88.0.2 lladdr 02:00:00:00:00:77 dev br0 nud permanent", "10.88.0.1", "neighbour of the host: the host's neighbour entry for 10.88.0.2 has MAC 02:00:00:00:00:77; the container's MAC is 0a:58:0a:58:00:02", true, ""},
		{"wrong forwarding entry on the bridge", nil, "bridge fdb replace 0a:58:0a:58:00:03 dev " + port("1") + " master static", "", "forwarding database of br0: packets for c2 (MAC 0a:58:0a:58:00:03) go to port", true, ""},
		{"the port is not flooded", nil, "bridge link set dev " + port("2") + " flood off learning off; bridge fdb flush dev " + port("2") + " master 2>/dev/null; ip link set " + port("2") + " down; ip link set " + port("2") + " up", "", "forwarding database of br0: no entry for c2", true, ""},
		{"a table of the netdev family", nil, "nft add table netdev mine; nft add chain netdev mine e \"{ type filter hook ingress device " + port("1") + " priority 0; policy drop; }\"", "", "dropped by chain e of table netdev mine: policy drop", false, `nft -a list chain netdev mine e`},
		{"ebtables", nil, "ebtables -P FORWARD DROP", "", "dropped by chain FORWARD of table bridge filter: policy drop", false, `nft -a list chain bridge filter FORWARD`},
		{"a rule ahead of ours", nil, "iptables -I FORWARD -p icmp -j DROP", "", "dropped by chain FORWARD of table ip filter: ", false, `the rule stands before the rules of bridgeveth; have the owner of the chain accept the packet: nft -a list chain ip filter FORWARD; or delete the rule: nft delete rule ip filter FORWARD handle`},
		{"forwarding off for the bridge", nil, "echo 0 >/proc/sys/net/ipv4/conf/br0/forwarding", "192.0.2.2", "forwarding: the host does not forward IPv4 packets: net/ipv4/conf/br0/forwarding is 0", true, ""},
		{"a routing rule", nil, "ip rule add from 10.88.0.2 prohibit", "192.0.2.2", "route of the host: no route to 192.0.2.2: a prohibit", false, ""},
		{"a queue that drops", nil, "tc qdisc add dev " + port("2") + " root tbf rate 8kbit burst 10 limit 10", "", "test packet: the request reached the host and did not reach c2", false, ""},
		{"no such host on the bridge", object{}, "", "10.88.0.99", "test packet: c1 gets no answer to its requests for the MAC of 10.88.0.99", false, ""},
		{"no default route configured", object{"isDefaultGateway": false, "isGateway": true}, "", "192.0.2.2", "route of c1: no route to 192.0.2.2", false, ""},
		{"no IPv6 in the container", object{"ipam": dual["ipam"]}, ip("2") + "sh -c 'echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6'", "fd88::3", "address of c2: IPv6 is off in the container", false, ""},
		{"no IPv6 on the bridge", object{"ipam": dual["ipam"]}, "echo 1 >/proc/sys/net/ipv6/conf/br0/disable_ipv6", "2001:db8::2", "bridge br0: IPv6 is off on the bridge", true, ""},
		{"ingress policy", object{"ingressPolicy": "isolated"}, "", "", "isolation: ports", false, ""},
		{"STP", nil, "ip link set br0 type bridge stp_state 1; ip link set " + port("1") + " down; ip link set " + port("1") + " up", "", "forwarding: is false", false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conf := single.with(tt.keys)
			n := newNode(t, conf, "nft")
			n.outside(false)
			n.must("add", n.containers(3)...)
			from, to := "/run/netns/c1", tt.to
			if to == "" {
				to = "/run/netns/c2"
			}
			if tt.keys == nil && tt.spoil != "" {
				if d, status := doctor(t, from, to); status != 0 || len(d) != 1 || !d[0].Answered {
					t.Fatalf("at first: status %d, %+v", status, d)
				}
				// Without this ping, there would be no neighbour entries, and the doctor's packets would
				// begin with a broadcast.
				setuptest.Run(t, "sh", "-c", ip("1")+"ping -q -c 1 "+cmp.Or(map[string]string{"": "10.88.0.3", "/run/netns/c3": "10.88.0.4"}[tt.to], tt.to))
			}
			if tt.spoil != "" {
				setuptest.Run(t, "sh", "-c", tt.spoil)
			}
			before := setuptest.Dump(t)
			d, status := doctor(t, from, to)
			setuptest.Same(t, before, "the doctor changed something")
			if status != 1 || !strings.Contains(d.obstacle(), tt.want) {
				t.Errorf("status %d, obstacle %q, want %q\n%+v", status, d.obstacle(), tt.want, d)
			}
			for _, s := range d[0].Stations {
				if said := s.What + s.Remedy; strings.Contains(said, "%") || strings.Contains(said, "<nil>") {
					t.Errorf("text output: %q", said)
				}
			}
			if d[0].Obstacle != nil && !strings.Contains(d[0].Obstacle.Remedy, tt.advice) {
				t.Errorf("remedy %q, want %q", d[0].Obstacle.Remedy, tt.advice)
			}
			d, status = doctor(t, "--fix", from, to)
			if fixed := status == 0; fixed != tt.fixed {
				t.Errorf("after --fix: status %d, obstacle %q\n%+v", status, d.obstacle(), d)
			}
		})
	}
}

// TestDoctorFixBesidePlugins runs bvctl from a folder with CNI plugins that have the names of
// system programs, such as bridge. It checks that --fix runs the system program, not the plugin.
func TestDoctorFixBesidePlugins(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := n.containers(2)
	n.must("add", c...)
	dir := t.TempDir()
	for name, of := range map[string]string{"bvctl": "bvctl", "bridge": "bridgeveth", "ip": "bridgeveth", "sysctl": "bridgeveth"} {
		setuptest.Run(t, "cp", filepath.Join(programs, of), filepath.Join(dir, name))
	}
	port := portNameOf(c[1])
	setuptest.Run(t, "bridge", "link", "set", "dev", port, "flood", "off", "learning", "off")
	setuptest.Run(t, "ip", "link", "set", port, "down")
	setuptest.Run(t, "ip", "link", "set", port, "up")
	fix := exec.Command(filepath.Join(dir, "bvctl"), "--conf-dir", "/run/net.d", "doctor", "--fix")
	fix.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	if out, err := fix.CombinedOutput(); err != nil || !strings.Contains(string(out), "+ bridge link set dev "+port) {
		t.Errorf("doctor --fix: %v: %s", err, out)
	}
	if out := setuptest.Run(t, "bridge", "-d", "link", "show", "dev", port); !strings.Contains(out, "flood on") || !strings.Contains(out, "learning on") {
		t.Errorf("nothing was cured: %s", out)
	}
}

// TestDoctorHealthy checks that the doctor finds no fault on a working node with every feature,
// for IPv4 and IPv6, with and without br_netfilter.
func TestDoctorHealthy(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"0", "1"} {
		t.Run("br_netfilter="+netfilter, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, dual.with(object{"ipspoofchk": true, "ingressPolicy": "same-bridge", "hairpinMode": true}), "nft", "legacy")
			for _, family := range []string{"ip", "ip6"} {
				setuptest.SetSysctl(t, "bridge/bridge-nf-call-"+family+"tables", netfilter)
			}
			n.outside(false)
			n.must("add", n.containers(3)...)
			before, known := setuptest.Dump(t), neighbours(t)
			for _, args := range [][]string{{}, {"10.88.0.2"}, {"/run/netns/c1", "fd88::3"}, {"/run/netns/c1", "192.0.2.2"}, {"/run/netns/c1", "2001:db8::2"}, {"/run/netns/c1", "10.88.0.1"}} {
				d, status := doctor(t, args...)
				if status != 0 || len(d) == 0 {
					t.Errorf("doctor %v: status %d, %s", args, status, d.obstacle())
				}
				for _, r := range d {
					if !r.Answered {
						t.Errorf("doctor %v: %s to %s: no answer: %+v", args, r.From, r.To, r.Stations)
					}
				}
			}
			setuptest.Same(t, before, "the doctor changed something")
			if after := neighbours(t); !slices.Equal(known, after) {
				t.Errorf("the doctor added neighbour entries: %q, want %q", after, known)
			}
			if out, status := bvctl(t, "doctor"); status != 0 || !strings.HasSuffix(out, "no problems found\n") || strings.Count(out, "\n") != 4*3+1 {
				t.Errorf("status %d: %s", status, out)
			}
		})
	}
}

// neighbours returns the addresses for which c1, c2, c3, or the host on br0, has a neighbour entry.
func neighbours(t testing.TB) (all []string) {
	t.Helper()
	list := "ip neigh show dev br0; for c in c1 c2 c3; do ip -n $c neigh show dev eth0; done"
	for line := range strings.Lines(setuptest.Run(t, "sh", "-ec", list)) {
		address, _, _ := strings.Cut(line, " ")
		all = append(all, address)
	}
	return all
}

// TestDoctorPaths checks the doctor with unusual targets: a machine on the bridge that is no
// container, the container itself, loopback addresses, an IPv4-mapped IPv6 address, and a path with
// "..". It also checks wrong arguments.
func TestDoctorPaths(t *testing.T) {
	t.Parallel()
	n := newNode(t, dual, "nft")
	n.outside(false)
	n.must("add", n.containers(2)...)
	setuptest.Run(t, "sh", "-c", "ip link add tap0 type veth peer name eth1 netns outside; ip link set tap0 master br0 up; ip -n outside addr add 10.88.0.50/24 dev eth1; ip -n outside link set eth1 up; iptables -P FORWARD ACCEPT")
	for _, to := range []string{"10.88.0.50", "10.88.0.2", "127.0.0.1", "::1", "fd88::2", "::ffff:10.88.0.3", "/var/run/../../run/netns/c2"} {
		if d, status := doctor(t, "/run/netns/c1", to); status != 0 || !d[0].Answered {
			t.Errorf("to %s: status %d, obstacle %q\n%+v", to, status, d.obstacle(), d)
		}
	}
	for _, args := range [][]string{{""}, {"/run/netns/c1", ""}, {"cnitool-"}} {
		if out, err := exec.Command(filepath.Join(programs, "bvctl"), append([]string{"doctor"}, args...)...).CombinedOutput(); err == nil || strings.Contains(string(out), "→") {
			t.Errorf("doctor %q: %v: %s", args, err, out)
		}
	}
	// This flush removes the masquerade rule, which no path between containers needs. The doctor
	// must report the missing rule exactly once.
	setuptest.Run(t, "nft", "flush", "chain", "ip", "bridgeveth", "postrouting")
	d, status := doctor(t)
	var wrong []string
	for _, r := range d {
		if r.Obstacle != nil {
			wrong = append(wrong, r.From+" to "+r.To+": "+r.Obstacle.What)
		}
	}
	if status != 1 || len(wrong) != 1 || !strings.Contains(wrong[0], " to : masquerade of 10.88.0.0/24 behind br0: missing") {
		t.Errorf("status %d, %q", status, wrong)
	}
}

// TestDoctorMapsFlushed deletes the elements of bridgeveth's nftables maps, but no rule and no table.
// The next ADD does not notice this. The doctor must report the host port and the guard of each
// container as missing.
func TestDoctorMapsFlushed(t *testing.T) {
	t.Parallel()
	n := newNode(t, single.with(object{"ipspoofchk": true, "capabilities": object{"portMappings": true}}), "nft")
	n.env = []string{`CAP_ARGS={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}`}
	c := n.containers(1)[0]
	n.must("add", c)
	setuptest.Run(t, "sh", "-ec", "nft flush map ip bridgeveth ports; nft flush map bridge bridgeveth guarded")
	d, status := doctor(t)
	said := fmt.Sprintf("%+v", d)
	for _, want := range []string{"host port tcp *:8080 to the container: is false", "port " + portNameOf(c) + " guarded: is false"} {
		if status != 1 || !strings.Contains(said, want) {
			t.Errorf("status %d, %q is not in %q", status, want, said)
		}
	}
	doctor(t, "--fix")
	n.must("check", c)
}

// TestDoctorKeepsGateway checks the doctor on a bridge with an uplink to a LAN. A router on the LAN
// is the containers' gateway. No command that the doctor prints may give the router's address to
// the bridge.
func TestDoctorKeepsGateway(t *testing.T) {
	t.Parallel()
	for _, bridge := range []string{"with an address of its own", "without an address"} {
		for _, tt := range []struct{ name, spoil, to, want string }{
			{"no such host outside", "", "192.0.2.77", "test packet: the request left the host, and no answer came back"},
			{"a route gone", "ip route del default", "192.0.2.2", "route of c1: no route to 192.0.2.2: the route to 0.0.0.0/0 is missing"},
			{"another gateway", "ip route replace default via 10.88.0.200", "192.0.2.2", "route of c1: via 10.88.0.200, which no host has; ADD gave the container the route 0.0.0.0/0 via 10.88.0.50"},
			{"the more specific of two routes gone", "ip route del 198.51.100.0/24", "198.51.100.2", "route of c1: via 10.88.0.50, which no host has; ADD gave the container the route 198.51.100.0/24 via 10.88.0.51"},
			{"both routes gone", "sh -c 'ip route del 198.51.100.0/24; ip route del default'", "198.51.100.2", "route of c1: no route to 198.51.100.2: the route to 198.51.100.0/24 is missing"},
		} {
			t.Run(bridge+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				n := newNode(t, object{"type": "bridgeveth", "bridge": "br0", "ipam": object{
					"type": "ipam-simple", "ranges": [][]object{{{"subnet": "10.88.0.0/24", "gateway": "10.88.0.50"}}},
					"routes": []object{{"dst": "0.0.0.0/0"}, {"dst": "198.51.100.0/24", "gw": "10.88.0.51"}},
				}}, "nft")
				n.outside(false)
				c := n.containers(1)[0]
				n.must("add", c)
				setuptest.Run(t, "sh", "-c", `ip link add tap0 type veth peer name eth1 netns outside; ip link set tap0 master br0 up
					for a in 10.88.0.50/24 10.88.0.51/24; do ip -n outside addr add $a dev eth1; done; ip -n outside link set eth1 up`)
				if strings.HasPrefix(bridge, "with ") {
					setuptest.Run(t, "ip", "addr", "add", "10.88.0.9/24", "dev", "br0")
				}
				given := setuptest.In(t, c, "ip", "route")
				if tt.spoil != "" {
					setuptest.Run(t, "sh", "-c", "nsenter --net=/run/netns/c1 "+tt.spoil)
				}
				if d, status := doctor(t, c.Path, tt.to); status != 1 || !strings.HasPrefix(d.obstacle(), tt.want) {
					t.Errorf("status %d, obstacle %q, want %q", status, d.obstacle(), tt.want)
				}
				doctor(t, "--fix", c.Path, tt.to)
				for _, route := range strings.Split(setuptest.In(t, c, "ip", "route"), "\n") {
					if !strings.Contains(given, route) {
						t.Errorf("after --fix there is the route %s, which was not there before:\n%s", route, given)
					}
				}
				if d, _ := doctor(t, c.Path, "192.0.2.2"); tt.to == "192.0.2.2" && !d[0].Answered {
					t.Errorf("after --fix: %q", d.obstacle())
				}
			})
		}
	}
}

// TestDoctorTwoInterfaces checks the doctor on paths within one container: from one interface to
// the other, and from an interface to itself.
func TestDoctorTwoInterfaces(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, spoil, to, want string }{
		{"nothing", "true", "10.89.0.2", ""},
		{"a rule of its own", "nft add table ip mine; nft add chain ip mine in '{ type filter hook input priority 0; policy drop; }'", "10.89.0.2", "dropped by chain in of table ip mine in the container's own namespace: policy drop"},
		{"a counter of its own", "iptables-legacy -A INPUT -j DROP", "10.89.0.2", "dropped by iptables-legacy in a container, -A INPUT -j DROP: its counter grew by the number of test packets"},
		{"pings ignored", "echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all", "10.89.0.2", "test packet: c1 does not answer pings"},
		{"pings to itself ignored", "echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all", "10.88.0.2", "test packet: c1 does not answer pings"},
		{"pings to 127.0.0.1 ignored", "echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all", "127.0.0.1", "test packet: c1 does not answer pings"},
		{"no loopback", "ip link set lo down", "10.89.0.2", "test packet: the container does not answer at its own address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, single, "nft")
			c := n.containers(1)[0]
			n.must("add", c)
			second := on("ADD", 1, single.with(object{"name": "other", "bridge": "br1", "isDefaultGateway": false, "isGateway": true, "ipam": object{"type": "ipam-simple", "subnet": "10.89.0.0/24"}}))
			second.ifname = "eth1"
			second.run(t).ok(t)
			setuptest.In(t, c, "sh", "-c", tt.spoil)
			before := setuptest.Dump(t) + setuptest.In(t, c, "nft", "list", "tables")
			d, status := doctor(t, "10.88.0.2", tt.to)
			if status != min(len(tt.want), 1) || !strings.HasPrefix(d.obstacle(), tt.want) {
				t.Errorf("status %d, obstacle %q, want %q\n%+v", status, d.obstacle(), tt.want, d)
			}
			if after := setuptest.Dump(t) + setuptest.In(t, c, "nft", "list", "tables"); after != before {
				t.Errorf("the doctor changed something: before\n%s\nafter\n%s", before, after)
			}
		})
	}
}

// TestDoctorLayer2 checks the doctor on a network without addresses.
func TestDoctorLayer2(t *testing.T) {
	t.Parallel()
	n := newNode(t, object{"type": "bridgeveth", "bridge": "br0"}, "nft")
	if out, status := bvctl(t, "doctor"); status != 0 || out != "no containers found\n" {
		t.Errorf("status %d: %s", status, out)
	}
	n.must("add", n.containers(2)...)
	for _, args := range [][]string{{}, {"/run/netns/c1"}, {"/run/netns/c1", "/run/netns/c2"}} {
		if d, status := doctor(t, args...); status != 0 || len(d) == 0 {
			t.Errorf("%v: status %d, %+v", args, status, d)
		}
		setuptest.Run(t, "ip", "link", "set", "br0", "down")
		if d, status := doctor(t, args...); status != 1 || d.obstacle() != "bridge br0: the bridge is down" {
			t.Errorf("%v: status %d, obstacle %q", args, status, d.obstacle())
		}
		if d, status := doctor(t, append([]string{"--fix"}, args...)...); status != 0 {
			t.Errorf("%v: after --fix: status %d, obstacle %q", args, status, d.obstacle())
		}
	}
}

// TestDoctorIncomplete checks the doctor's reports about a container without a network namespace,
// and about unreadable records of libcni.
func TestDoctorIncomplete(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	n.must("add", n.containers(2)...)
	setuptest.Run(t, "sh", "-c", "umount -l /run/netns/c1; mv /run/netns/c1 /run/gone")
	if d, status := doctor(t); status != 1 || !strings.HasPrefix(d.obstacle(), "namespace of c1: interface eth0 of network net: open /run/netns/c1: the network namespace does not exist") {
		t.Errorf("status %d, obstacle %q", status, d.obstacle())
	}
	setuptest.Run(t, "sh", "-c", "for f in /var/lib/cni/results/*; do echo '{' >$f; done")
	if d, status := doctor(t); status != 1 || !strings.HasPrefix(d.obstacle(), "record: /var/lib/cni/results/") {
		t.Errorf("status %d, obstacle %q", status, d.obstacle())
	}
}

// TestDoctorQuotes checks that --fix quotes the path of a container. The path contains characters
// that have a meaning for a shell.
func TestDoctorQuotes(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := setuptest.Container(t, "a b'$(touch run)")
	n.must("add", c)
	setuptest.In(t, c, "ip", "link", "set", "eth0", "down")
	if d, status := doctor(t, c.Path); status != 1 || !strings.Contains(d.obstacle(), "eth0 is down") {
		t.Errorf("status %d, obstacle %q", status, d.obstacle())
	}
	doctor(t, "--fix", c.Path)
	if out := setuptest.In(t, c, "ip", "-o", "link", "show", "eth0"); !strings.Contains(out, ",UP") {
		t.Errorf("eth0 is not up: %s", out)
	}
	if _, err := os.Stat("run"); err == nil {
		t.Error("the shell ran a command from the container's path")
	}
}

// TestDoctorNames checks how the doctor quotes the name of an nftables table in a container. The
// name contains commands for nft(8) and for a shell, and a line that looks like output of the
// doctor.
func TestDoctorNames(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := n.containers(2)
	n.must("add", c...)
	const name = "a in; add table ip run; # $(touch run)\n# all is well"
	setuptest.In(t, c[1], "nft", "add table ip a; add chain ip a in")
	err := c[1].Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: name})
		chain := conn.AddChain(&nftables.Chain{
			Table: table, Name: "in", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
		})
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}})
		return conn.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
	out, status := bvctl(t, "doctor", c[0].Path, c[1].Path)
	if status != 1 || !strings.Contains(out, "dropped by chain in of table ip a in; ") || strings.Contains(out, "\n#") {
		t.Errorf("status %d: %s", status, out)
	}
	if want := "nsenter --net=/run/netns/c2 nft delete rule ip '" + strings.ReplaceAll(name, "\n", "; ") + "' in handle"; !strings.Contains(out, want) {
		t.Errorf("no %q: %s", want, out)
	}
	if exec.Command("nsenter", "--net=/run/netns/c2", "nft", "list", "table", "ip", "run").Run() == nil {
		t.Error("nft ran a command from the table's name")
	}
}

// TestDoctorContainerRemoved checks the doctor's report if the target container is removed while
// the doctor's packet is on its way.
func TestDoctorContainerRemoved(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := n.containers(2)
	n.must("add", c...)
	setuptest.Run(t, "iptables", "-A", "BRIDGEVETH-ADMIN", "-d", "10.88.0.3", "-j", "DROP")
	cmd := exec.Command(filepath.Join(programs, "bvctl"), "--conf-dir", "/run/net.d", "doctor", "/run/netns/c1", "/run/netns/c2")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if strings.Contains(setuptest.Run(t, "nft", "list", "tables"), "bridgeveth-doctor") {
			break
		}
	}
	n.must("del", c[1])
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "removed in the meantime") {
		t.Errorf("%v: %s", err, out.String())
	}
}

// TestDoctorManyBlocked checks a node on which no container reaches another. The doctor must report
// five containers one by one, and then all others together.
func TestDoctorManyBlocked(t *testing.T) {
	t.Parallel()
	n := newNode(t, single.with(object{"forward": "none"}), "nft")
	n.must("add", n.containers(8)...)
	d, status := doctor(t)
	lost := 0
	for _, r := range d {
		if r.Obstacle != nil {
			lost++
		}
	}
	if status != 1 || lost != 5 || d[len(d)-1].From != "other containers" {
		t.Errorf("status %d, %d lost: %+v", status, lost, d)
	}
}

// TestDoctorOnce makes one obstacle that blocks the packets of all containers. The doctor must
// print this obstacle only once, with the list of the blocked paths. With -v, the doctor must print
// the steps of each path.
func TestDoctorOnce(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]string{"a policy": "iptables -F FORWARD", "a rule that counts": "iptables -I BRIDGEVETH-ADMIN -p icmp -j DROP"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, single, "nft")
			n.must("add", n.containers(4)...)
			setuptest.Run(t, "sh", "-c", spoil)
			out, status := bvctl(t, "doctor")
			if status != 1 || strings.Count(out, "dropped by chain") != 1 || strings.Contains(out, "route of") {
				t.Errorf("status %d, the obstacle is not printed exactly once:\n%s", status, out)
			}
			after := out[strings.Index(out, "dropped by chain"):]
			for _, way := range []string{"(10.88.0.2) → ", "(10.88.0.3) → ", "(10.88.0.4) → ", "(10.88.0.5) → "} {
				if strings.Count(after, way) != 1 {
					t.Errorf("%q is not printed exactly once as blocked:\n%s", way, out)
				}
			}
			if out, status := bvctl(t, "doctor", "-v"); status != 1 || strings.Count(out, "Obstacle: ") != 4 || strings.Count(out, "route of") < 8 {
				t.Errorf("-v: status %d:\n%s", status, out)
			}
		})
	}
}

// TestDoctorFixUndone checks --fix while another program immediately undoes each change. The doctor
// must report that its commands had no effect.
func TestDoctorFixUndone(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	n.outside(false)
	n.must("add", n.containers(1)...)
	undo := harness.Daemon(t, "sh", "-c", "while :; do echo 0 >/proc/sys/net/ipv4/conf/br0/forwarding; done")
	fix := exec.Command(filepath.Join(programs, "bvctl"), "--conf-dir", "/run/net.d", "doctor", "--fix", "/run/netns/c1", "192.0.2.2")
	out, err := fix.CombinedOutput()
	undo()
	const cure = "sysctl -w net.ipv4.conf.br0.forwarding=1\n"
	if err == nil || !strings.Contains(string(out), "+ "+cure) || !strings.Contains(string(out), "no effect: "+cure) {
		t.Errorf("%v: %s", err, out)
	}
}

// TestDoctorKilled ends the doctor by a signal while its test packet is on its way. It checks that
// the doctor's tables are removed: by the kernel when the process ends or, on kernels without table
// owners, by the next run of the doctor.
func TestDoctorKilled(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			n := newNode(t, single, "nft")
			c := n.containers(3)
			n.must("add", c...)
			setuptest.Run(t, "iptables", "-A", "BRIDGEVETH-ADMIN", "-d", "10.88.0.3", "-j", "DROP")
			tables := func() string {
				return setuptest.Run(t, "nft", "list", "ruleset") + setuptest.In(t, c[0], "nft", "list", "ruleset") + setuptest.In(t, c[1], "nft", "list", "ruleset")
			}
			cmd := exec.Command(filepath.Join(programs, "bvctl"), "--conf-dir", "/run/net.d", "doctor", "/run/netns/c1", "/run/netns/c2")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			there := ""
			for range 1000 {
				if there = tables(); strings.Contains(there, "bridgeveth-doctor") {
					break
				}
			}
			err := cmd.Process.Signal(signal)
			_ = cmd.Wait() // ended by a signal
			if err != nil || !strings.Contains(there, "bridgeveth-doctor") {
				t.Fatalf("%v: the doctor has no table:\n%s", err, there)
			}
			if signal == syscall.SIGKILL && !strings.Contains(there, "flags owner") {
				doctor(t, "/run/netns/c3", "10.88.0.1")
			}
			if left := tables(); strings.Contains(left, "bridgeveth-doctor") {
				t.Errorf("tables of the killed doctor are left:\n%s", left)
			}
		})
	}
}

// TestDoctorsAtOnce checks that several doctor processes that start at the same time wait for each
// other, and run one after another.
func TestDoctorsAtOnce(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	n.must("add", n.containers(2)...)
	var all []*exec.Cmd
	for range 4 {
		cmd := exec.Command(filepath.Join(programs, "bvctl"), "--conf-dir", "/run/net.d", "doctor")
		cmd.Stderr = &strings.Builder{}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, cmd)
	}
	for _, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, cmd.Stderr)
		}
	}
}

// track adds a UDP connection with an answer to the conntrack table. Connections without an answer
// would not fill the table, because the kernel drops them when the table is full.
func track(from, to uint16) error {
	a, b := []byte{192, 0, 2, 1}, []byte{192, 0, 2, 2}
	port := func(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }
	tuple := func(kind int, source, destination []byte, from, to uint16) *nl.RtAttr {
		t := nl.NewRtAttr(kind|unix.NLA_F_NESTED, nil)
		ip := t.AddRtAttr(nl.CTA_TUPLE_IP|unix.NLA_F_NESTED, nil)
		ip.AddRtAttr(nl.CTA_IP_V4_SRC, source)
		ip.AddRtAttr(nl.CTA_IP_V4_DST, destination)
		proto := t.AddRtAttr(nl.CTA_TUPLE_PROTO|unix.NLA_F_NESTED, nil)
		proto.AddRtAttr(nl.CTA_PROTO_NUM, []byte{unix.IPPROTO_UDP})
		proto.AddRtAttr(nl.CTA_PROTO_SRC_PORT, port(from))
		proto.AddRtAttr(nl.CTA_PROTO_DST_PORT, port(to))
		return t
	}
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|nl.IPCTNL_MSG_CT_NEW, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	req.AddData(tuple(nl.CTA_TUPLE_ORIG, a, b, from, to))
	req.AddData(tuple(nl.CTA_TUPLE_REPLY, b, a, to, from))
	const answered = 1<<1 | 1<<2 | 1<<3 // IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED
	req.AddData(nl.NewRtAttr(nl.CTA_STATUS, binary.BigEndian.AppendUint32(nil, answered)))
	req.AddData(nl.NewRtAttr(nl.CTA_TIMEOUT, binary.BigEndian.AppendUint32(nil, 300)))
	_, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	return err
}

// TestDoctorConntrackFull checks that the doctor reports a full conntrack table.
func TestDoctorConntrackFull(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	n.must("add", n.containers(2)...)
	limit, err := strconv.Atoi(setuptest.Sysctl(t, "netfilter/nf_conntrack_max"))
	if err != nil || limit > 1<<19 {
		t.Skipf("LISTED SKIP: a table of %d connections is too large to fill", limit)
	}
	for i := 0; err == nil && i <= limit; i++ {
		err = track(uint16(i>>8), uint16(i&255))
	}
	if err != nil && !errors.Is(err, unix.ENOMEM) {
		t.Fatal(err)
	}
	if d, status := doctor(t, "/run/netns/c1", "/run/netns/c2"); status != 1 || !strings.Contains(d.obstacle(), "conntrack: the table is full") {
		t.Errorf("status %d, obstacle %q", status, d.obstacle())
	}
}
