package cnitool

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// oneByOne returns the configuration of a network with a separate address range for each subnet.
// All ranges have the same gateway.
func oneByOne(gateway string, subnets ...string) object {
	var set []object
	for _, s := range subnets {
		set = append(set, object{"subnet": s, "gateway": gateway})
	}
	return dual.with(object{"ipam": object{"type": "ipam-simple", "ranges": [][]object{set}}})
}

// TestGatewayOutsideSubnet checks containers whose gateway is outside of their subnet. A container
// then needs a route to the gateway, and the host needs a route to the container.
func TestGatewayOutsideSubnet(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name             string
		conf             object
		gateway, beyond  string // the gateway and an address beyond the host, as arguments of ping in a container
		first, second    string // addresses of the containers
		firstRoute       string // route of the host, if only the first container needs it
		theirs, byOthers bool   // somebody else has made the bridge; the plugins have the names of the reference plugins
	}{
		{name: "link-local", conf: oneByOne("fe80::1", "fd88::/64"), gateway: "fe80::1%eth0", beyond: "2001:db8::2", first: "fd88::1", second: "fd88::2"},
		{name: "link-local, on a foreign bridge", theirs: true, conf: oneByOne("fe80::1", "fd88::/64"), gateway: "fe80::1%eth0", beyond: "2001:db8::2", first: "fd88::1", second: "fd88::2"},
		{name: "link-local, names of the reference plugins", byOthers: true, conf: oneByOne("fe80::1", "fd88::/64"), gateway: "fe80::1%eth0", beyond: "2001:db8::2", first: "fd88::1", second: "fd88::2"},
		{name: "IPv6", conf: oneByOne("fd99::1", "fd88::/64"), gateway: "fd99::1", beyond: "2001:db8::2", first: "fd88::1", second: "fd88::2"},
		{name: "IPv4", conf: oneByOne("10.99.0.1", "10.88.0.0/24"), gateway: "10.99.0.1", beyond: "192.0.2.2", first: "10.88.0.1", second: "10.88.0.2"},
		{name: "IPv4 link-local", conf: oneByOne("169.254.1.1", "10.88.0.0/24"), gateway: "169.254.1.1", beyond: "192.0.2.2", first: "10.88.0.1", second: "10.88.0.2"},
		{name: "/32", conf: oneByOne("10.99.0.1", "10.88.0.5/32", "10.88.0.9/32"), gateway: "10.99.0.1", beyond: "192.0.2.2", first: "10.88.0.5", second: "10.88.0.9", firstRoute: "10.88.0.5"},
		{name: "/32, on a foreign bridge", theirs: true, conf: oneByOne("10.99.0.1", "10.88.0.5/32", "10.88.0.9/32"), gateway: "10.99.0.1", beyond: "192.0.2.2", first: "10.88.0.5", second: "10.88.0.9", firstRoute: "10.88.0.5"},
		{name: "/128", conf: oneByOne("fe80::1", "fd88::5/128", "fd88::9/128"), gateway: "fe80::1%eth0", beyond: "2001:db8::2", first: "fd88::5", second: "fd88::9", firstRoute: "fd88::5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.byOthers {
				tt.conf["type"] = "bridge"
				tt.conf["ipam"].(object)["type"] = "host-local"
			}
			n := newNode(t, tt.conf, "nft")
			if tt.byOthers {
				dir := t.TempDir()
				for _, name := range []string{"bridge", "host-local"} {
					setuptest.Run(t, "cp", filepath.Join(programs, "bridgeveth"), filepath.Join(dir, name))
				}
				n.env = []string{"CNI_PATH=" + dir}
			}
			if tt.theirs {
				setuptest.Run(t, "sh", "-ec", `ip link add br0 address 02:00:00:00:00:01 type bridge; ip link set br0 addrgenmode none
					ip link set br0 up; ip addr add fe80::ff:fe00:1/64 dev br0 nodad`)
			}
			before := setuptest.Dump(t)
			n.outside(false)
			c := n.containers(2)
			n.must("add", c...)
			n.must("check", c...)
			works := func(when string) {
				t.Helper()
				for _, p := range []struct {
					from *setup.Namespace
					to   string
				}{{c[0], tt.gateway}, {c[0], tt.beyond}, {c[0], tt.second}, {n.Namespace, tt.first}} {
					if !setuptest.Ping(t, p.from, p.to) {
						t.Errorf("%s: %s gets no answer from %s", when, p.from.Path, p.to)
					}
				}
			}
			works("after ADD")
			if d, status := doctor(t); status != 0 {
				t.Errorf("doctor: %+v", d)
			}
			route := strings.Fields(setuptest.Run(t, "ip", "route", "get", "fibmatch", tt.first))[0]
			setuptest.Run(t, "ip", "route", "del", route, "dev", "br0")
			if err := n.cnitool("check", c[0]); err == nil || !strings.Contains(err.Error(), "route to "+tt.first) && !strings.Contains(err.Error(), "route to "+route) {
				t.Errorf("CHECK does not report the missing route: %v", err)
			}
			if d, status := doctor(t); status == 0 {
				t.Errorf("doctor does not report the missing route: %+v", d)
			}
			bvctl(t, "repair")
			works("after repair")
			n.must("check", c...)
			setuptest.In(t, c[0], "sh", "-c", "ip route flush all; ip -6 route del default || true") // the container then has no route to its gateway
			setuptest.Run(t, filepath.Join(programs, "bvctl"), "--conf-dir", "/run/net.d", "doctor", "--fix", c[0].Path, tt.beyond)
			n.must("check", c...)
			n.must("del", c[0])
			if tt.firstRoute != "" && strings.Contains(setuptest.Run(t, "ip", "route")+setuptest.Run(t, "ip", "-6", "route"), tt.firstRoute+" dev br0") {
				t.Errorf("the route to %s is left", tt.firstRoute)
			}
			n.must("check", c[1])
			n.must("del", c[1])
			setuptest.Run(t, "ip", "link", "delete", "uplink")
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}

// TestGatewayOnLAN checks a network whose gateway is a link-local address on a LAN, behind the
// bridge's uplink. The host gets no address and no route.
func TestGatewayOnLAN(t *testing.T) {
	t.Parallel()
	conf := object{"type": "bridgeveth", "bridge": "br0", "ipam": object{
		"type": "ipam-simple", "subnet": "fd88::/64", "gateway": "fe80::1", "routes": []object{{"dst": "::/0"}},
	}}
	n := newNode(t, conf, "nft")
	setuptest.Container(t, "router")
	setuptest.Run(t, "sh", "-ec", `ip link add br0 up address 02:00:00:00:00:01 type bridge
		ip link add lan master br0 up type veth peer name eth0 netns router
		ip -n router addr add fe80::1/64 dev eth0 nodad; ip -n router addr add 2001:db8::1/128 dev lo; ip -n router link set eth0 up; ip -n router link set lo up
		ip -n router route add fd88::/64 dev eth0`)
	c := n.containers(1)
	before := setuptest.Dump(t)
	n.must("add", c...)
	n.must("check", c...)
	if !setuptest.Ping(t, c[0], "2001:db8::1") {
		t.Error("no answer through the router")
	}
	if after := setuptest.Run(t, "ip", "-6", "route"); strings.Contains(after, "fd88") {
		t.Errorf("ADD has added a route to the host:\n%s", after)
	}
	setuptest.In(t, c[0], "ip", "route", "del", "::/0")
	if err := n.cnitool("check", c[0]); err == nil || !strings.Contains(err.Error(), "route ::/0 via fe80::1") {
		t.Errorf("check: %v", err)
	}
	n.must("del", c...)
	setuptest.Same(t, before, "DEL left traces")
}
