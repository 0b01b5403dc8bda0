package cnitool

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// portOf is the name of the bridge port of container number 1.
var portOf = setup.Attachment{Network: "net", Container: "c1", Interface: "eth0"}.Port()

// TestCheckFinds removes or changes one part of a complete attachment at a time. It checks that
// CHECK names the part and changes nothing.
func TestCheckFinds(t *testing.T) {
	t.Parallel()
	conf := everything.with(object{"portIsolation": true, "mtu": 1400, "gatewayConflict": "add"})
	conf["ipam"] = conf["ipam"].(object).with(object{"routes": []object{{"dst": "198.51.100.0/24", "table": 100}}})
	for _, tt := range []struct{ name, spoil, want string }{
		{"gateway", "ip addr del fd88::1/64 dev br0", "address fd88::1/64 of bridge br0: missing"},
		{"forwarding", "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding", "sysctl net/ipv6/conf/all/forwarding=1: missing"},
		{"masquerade", "nft flush chain ip bridgeveth postrouting", "masquerade of 10.88.0.0/24 behind br0: missing"},
		{"masqExclude", "nft flush chain ip bridgeveth postrouting", "203.0.113.0/24"},
		{"ingress policy", "nft flush chain ip6 bridgeveth forwarded", "ingress"},
		{"host ports of the network", "nft flush chain ip bridgeveth postrouting", "host ports"},
		{"host port", "nft flush map ip bridgeveth ports", "host port tcp *:8080 to the container: is false"},
		{"host port of UDP", "nft flush map ip6 bridgeveth ports", "host port udp *:5353 to the container: is false"},
		{"localhost", "echo 0 >/proc/sys/net/ipv4/conf/br0/route_localnet", "route_localnet=1: missing"},
		{"guard of localhost", "tc filter del dev br0 ingress", "guard of 127.0.0.0/8 on br0: missing"},
		{"router advertisements", "echo 1 >/proc/sys/net/ipv6/conf/br0/accept_ra", "accept_ra=0: missing"},
		{"guard", "nft flush map bridge bridgeveth guarded", "port " + portOf + " guarded: is false"},
		{"guard's address", "nft flush set bridge bridgeveth addresses4", "10.88.0.2 of port " + portOf},
		{"hairpin", "ip link set " + portOf + " type bridge_slave hairpin off", "hairpin mode of port " + portOf + ": is false"},
		{"isolation", "ip link set " + portOf + " type bridge_slave isolated off", "isolation of port " + portOf + ": is false"},
		{"BPDU guard", "bridge link set dev " + portOf + " guard off", "BPDU guard of port " + portOf + ": is false"},
		{"MTU of the port", "ip link set " + portOf + " mtu 1500", "MTU of port " + portOf + ": is 1500 instead of 1400"},
		{"MTU inside", "ip -n c1 link set eth0 mtu 1500", "MTU of eth0: is 1500 instead of 1400"},
		{"port down", "ip link set " + portOf + " down", "port " + portOf + " up: is false"},
		{"link down", "ip -n c1 link set eth0 down", "interface eth0 up: is false"},
		{"port blocked", "ip link set br0 type bridge stp_state 1; ip link set " + portOf + " down; ip link set " + portOf + " up", "port " + portOf + " forwarding: is false"},
		{"MAC", "ip -n c1 link set eth0 address 02:00:00:00:00:01", "MAC of eth0: is 02:00:00:00:00:01"},
		{"port off the bridge", "ip link set " + portOf + " nomaster", "port " + portOf + " on bridge br0: is false"},
		{"address", "ip -n c1 addr del fd88::2/64 dev eth0", "address fd88::2/64 on eth0: is false"},
		{"default route", "ip -n c1 route del default", "route 0.0.0.0/0 via 10.88.0.1: is false"},
		{"route of a table", "ip -n c1 route del 198.51.100.0/24 table 100", "route 198.51.100.0/24 via 10.88.0.1: is false"},
		{"sysctl", "ip netns exec c1 sh -c 'echo 0 >/proc/sys/net/ipv4/conf/eth0/rp_filter'", "rp_filter of the container: is 0 instead of 2"},
		{"FORWARD rules", "ip6tables -F BRIDGEVETH-FORWARD", "rules of bridge br0 in ip6tables-nft filter FORWARD: missing"},
		{"lease", programs + "/bvctl leases release --force --container c1", "no address is leased"},
		{"interface", "ip -n c1 link del eth0", "port " + portOf + ": missing"},
		{"bridge", "ip link del br0", "bridge br0: missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newNode(t, conf, "nft").containers(1)
			a := on("ADD", 1, conf).run(t).ok(t)
			check := on("CHECK", 1, checking(conf, a))
			check.run(t).ok(t)
			setuptest.Run(t, "sh", "-c", tt.spoil)
			before := setuptest.Dump(t)
			if f := check.run(t).failed(t); f.Code != 103 || !strings.Contains(f.Msg, tt.want) {
				t.Errorf("got %+v, want code 103, %q", f, tt.want)
			}
			setuptest.Same(t, before, "CHECK changed something")
			on("DEL", 1, conf).run(t).ok(t)
		})
	}
}

// olderBuild is a shell script that makes the attachment of container number 1 look as if an older
// build had made it. It also sets the MAC address that the older build gave the bridge port.
const olderBuild = `
ip link set vethfl2sl3owzot address 02:2a:f5:25:ed:d6
bridge link set dev vethfl2sl3owzot guard off
echo 1 >/proc/sys/net/ipv6/conf/br0/accept_ra` + olderHostPorts

// TestCheckOlderBuild checks that CHECK succeeds for a container that an older build has attached.
// If a part that the older build had made is missing, CHECK must report it.
func TestCheckOlderBuild(t *testing.T) {
	t.Parallel()
	conf := publishing(single.with(object{"ipMasq": false, "ipspoofchk": true}), object{"hostPort": 8080, "containerPort": 80})
	for _, tt := range []struct{ name, spoil, want string }{
		{"as it was", "true", ""},
		{"host ports lost", "nft flush chain ip bridgeveth hostports", "host ports of 10.88.0.0/24 behind br0: missing"},
		{"masquerade of host ports lost", "nft flush chain ip bridgeveth postrouting", "host ports of 10.88.0.0/24 behind br0: missing"},
		{"guard lost", "nft flush chain bridge bridgeveth arriving", "guard against spoofed addresses on br0: missing"},
		{"attached anew", "ip link set " + portOf + " address fe:2a:f5:25:ed:d6", "accept_ra=0: missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newNode(t, conf, "nft").containers(2)
			a := on("ADD", 1, conf).run(t).ok(t)
			check := on("CHECK", 1, checking(conf, a))
			setuptest.Run(t, "sh", "-ec", olderBuild)
			olderGuard(t, []string{"br0"}, 1)
			setuptest.Run(t, "sh", "-ec", tt.spoil)
			if tt.want == "" {
				check.run(t).ok(t)
			} else if f := check.run(t).failed(t); f.Code != 103 || !strings.Contains(f.Msg, tt.want) {
				t.Errorf("got %+v, want code 103, %q", f, tt.want)
			}
			on("ADD", 2, publishing(conf, object{"hostPort": 9090, "containerPort": 80})).run(t).ok(t)
			setuptest.Run(t, "sh", "-c", "ip link set "+portOf+" address fe:2a:f5:25:ed:d6; bridge link set dev "+portOf+" guard on")
			check.run(t).ok(t)
		})
	}
}

// TestCheckIgnores changes things on the host and in the container that do not belong to the
// attachment. It checks that CHECK still succeeds.
func TestCheckIgnores(t *testing.T) {
	t.Parallel()
	newNode(t, everything, "nft").containers(3)
	a := on("ADD", 1, everything).run(t).ok(t)
	check := on("CHECK", 1, checking(everything, a))
	for _, tt := range []struct{ name, do string }{
		{"a sniffer on the bridge", "ip link set br0 promisc on"},
		{"a sniffer on the port", "ip link set " + portOf + " promisc on"},
		{"udev changes the port's MAC", "ip link set " + portOf + " address 02:00:00:00:00:01"},
		{"udev changes the bridge's MAC", "ip link set br0 address 02:00:00:00:00:02"},
		{"another address in the container", "ip -n c1 addr add 192.0.2.9/24 dev eth0"},
		{"another route in the container", "ip -n c1 route add 203.0.113.0/24 via 10.88.0.1"},
		{"another interface in the container", "ip -n c1 link add eth1 type veth peer name eth2"},
		{"the default route moves to another table", "ip -n c1 route add default via 10.88.0.1 dev eth0 table 100; ip -n c1 route del default table main"},
		{"another address on the bridge", "ip addr add 198.51.100.1/24 dev br0"},
		{"another port on the bridge", "ip link add other type veth peer name other2; ip link set other master br0"},
		{"another MTU of the bridge", "ip link set other mtu 1280; ip link set other nomaster; ip link set br0 mtu 1500"},
		{"foreign rules after ours", "iptables -A FORWARD -j ACCEPT; iptables -t nat -A POSTROUTING -j ACCEPT"},
		{"Kubernetes' rules", "iptables -N KUBE-FORWARD; iptables -I FORWARD 2 -j KUBE-FORWARD"},
		{"another table", "nft add table inet other; nft add chain inet other forward '{ type filter hook forward priority 0; }'"},
		{"a default qdisc", "tc qdisc add dev br0 root pfifo; tc -n c1 qdisc add dev eth0 root pfifo"},
	} {
		setuptest.Run(t, "sh", "-c", tt.do)
		if a := check.run(t); a.err != nil {
			t.Errorf("%s: %s", tt.name, a.stdout)
		}
	}
	second := on("ADD", 1, publishing(everything, object{"hostPort": 9090, "containerPort": 90}))
	second.ifname = "eth7"
	second.conf = second.conf.with(object{"isDefaultGateway": false, "isGateway": true})
	second.run(t).ok(t)
	on("ADD", 2, single.with(object{"name": "other", "bridge": "br1", "ipam": object{"type": "ipam-simple", "subnet": "10.89.0.0/24"}})).run(t).ok(t)
	check.run(t).ok(t)
}

// TestChain checks a list of plugins in which a reference plugin after bridgeveth changes the
// container's interface. CHECK must accept this change, because it gets the result of the whole
// list. DEL must remove everything.
func TestChain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		behind object
	}{
		{"tuning", object{"type": "tuning", "mac": "02:00:00:00:00:09", "mtu": 1380, "sysctl": object{"net.ipv4.conf.IFNAME.arp_filter": "1"}, "dataDir": "/run/tuning"}},
		{"sbr", object{"type": "sbr"}},
		{"firewall", object{"type": "firewall", "backend": "iptables"}},
		{"portmap", object{"type": "portmap", "backend": "iptables", "capabilities": object{"portMappings": true}}},
	} {
		for _, version := range []string{"1.0.0", "1.1.0"} {
			t.Run(tt.name+" "+version, func(t *testing.T) {
				t.Parallel()
				first := single.with(object{"mtu": "auto", "capabilities": object{"portMappings": true}})
				n := newNode(t, first, "nft")
				n.outside(false)
				setuptest.Run(t, "sh", "-c", "ip link set uplink mtu 1420; ip route add default via 192.0.2.2; ip link add br0 type bridge; ip link set br0 up")
				list, err := json.Marshal(object{"cniVersion": version, "name": "net", "plugins": []object{first, tt.behind}})
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile("/run/net.d/10-net.conflist", list, 0o600); err != nil {
					t.Fatal(err)
				}
				c := n.containers(2)
				n.env = []string{`CAP_ARGS={"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}`}
				n.must("add", c[0])
				n.must("check", c[0])
				if !setuptest.Ping(t, n.Namespace, "10.88.0.2") {
					t.Error("no answer from the container")
				}
				n.must("del", c[0])
				if left := setuptest.Dump(t); strings.Contains(left, "bridgeveth") || strings.Contains(left, "10.88.0.") || strings.Contains(left, "BRIDGEVETH") {
					t.Errorf("DEL left traces:\n%s", left)
				}
			})
		}
	}
}

// received runs a call and returns how many bytes the call reads from sockets. It counts only the
// sockets whose names in strace's output begin with the given text, such as "NETLINK:".
func received(t *testing.T, c call, sockets string) (bytes int) {
	t.Helper()
	c.before = []string{"strace", "-f", "-qq", "-yy", "-o", "/run/trace", "-e", "trace=read,recvmsg"}
	c.run(t).ok(t)
	trace, err := os.ReadFile("/run/trace")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(trace)) {
		if _, size, found := strings.Cut(line, ") = "); found && strings.Contains(line, "<"+sockets) {
			n, _ := strconv.Atoi(strings.TrimSpace(size)) // 0 for an error
			bytes += n
		}
	}
	return bytes
}

// TestCheckReadsConstantAmount checks that forty other containers do not increase the amount of
// data that CHECK reads from the kernel.
func TestCheckReadsConstantAmount(t *testing.T) {
	t.Parallel()
	const others = 40
	newNode(t, dual, "nft").containers(others + 1)
	publish := func(i int) object { return publishing(dual, object{"hostPort": 8000 + i, "containerPort": 80}) }
	first := on("ADD", 1, publish(1)).run(t).ok(t)
	check := on("CHECK", 1, publish(1).with(object{"prevResult": json.RawMessage(first.stdout)}))
	alone := received(t, check, "NETLINK:")
	if alone < 1000 {
		t.Fatalf("the trace shows only %d bytes: the test proves nothing", alone)
	}
	for i := range others {
		on("ADD", i+2, publish(i+2)).run(t).ok(t)
	}
	if beside := received(t, check, "NETLINK:"); beside > alone+100 {
		t.Errorf("CHECK reads %d bytes of the kernel, and %d with %d containers more", alone, beside, others)
	}
}
