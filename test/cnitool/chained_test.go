package cnitool

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// behind returns conf as libcni passes it to a plugin that runs after another one. prevResult is
// the other plugin's result.
func behind(conf, result object) object {
	return conf.with(object{"prevResult": object{"cniVersion": "1.1.0"}.with(result)})
}

// tap is the result of a plugin that has made a tap for a virtual machine.
var tap = object{"interfaces": []object{{"name": "tap0"}, {"name": "eth0", "mac": "02:00:00:00:00:09", "sandbox": "vm-1"}}}

// TestExistingTap checks that ADD attaches a tap that another plugin has made, and that DEL
// restores the tap.
func TestExistingTap(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft").containers(2)
	setuptest.Run(t, "ip", "tuntap", "add", "tap0", "mode", "tap")
	setuptest.Run(t, "ip", "link", "set", "tap0", "up")
	before := setuptest.Dump(t)
	conf := behind(single.with(object{"portIsolation": true}), tap)
	a := on("ADD", 1, conf).run(t).ok(t)
	var result struct {
		Interfaces []object `json:"interfaces"`
		IPs        []object `json:"ips"`
	}
	if err := json.Unmarshal(a.stdout, &result); err != nil {
		t.Fatal(err)
	}
	if len(result.Interfaces) != 3 || result.Interfaces[0]["name"] != "tap0" || result.Interfaces[2]["name"] != "br0" ||
		len(result.IPs) != 1 || result.IPs[0]["address"] != "10.88.0.2/24" || result.IPs[0]["interface"] != 1.0 {
		t.Errorf("the result does not combine the previous plugin's result with ours: %s", a.stdout)
	}
	if link := setuptest.Run(t, "ip", "-o", "-d", "link", "show", "tap0"); !strings.Contains(link, "master br0") || !strings.Contains(link, "isolated on") {
		t.Errorf("the tap is not a port of the bridge: %s", link)
	}
	check := on("CHECK", 1, checking(conf, a))
	check.run(t).ok(t)
	if f := on("ADD", 1, conf).run(t).failed(t); f.Code != 101 {
		t.Errorf("the second ADD: got %+v, want code 101", f)
	}
	call{verb: "GC", conf: single.with(object{"cni.dev/valid-attachments": []object{{"containerID": "c1", "ifname": "eth0"}}})}.run(t).ok(t)
	check.run(t).ok(t)
	on("ADD", 2, single).run(t).ok(t)
	on("DEL", 2, single).run(t).ok(t)
	check.run(t).ok(t)
	setuptest.Run(t, "ip", "link", "set", "tap0", "nomaster")
	if f := check.run(t).failed(t); f.Code != 103 || !strings.Contains(f.Msg, "port tap0 on bridge br0") {
		t.Errorf("CHECK of a tap that is off the bridge: %+v", f)
	}
	setuptest.Run(t, "ip", "link", "set", "tap0", "master", "br0")
	for _, end := range []call{on("DEL", 1, single), {verb: "GC", conf: single.with(object{"cni.dev/valid-attachments": []object{}})}} {
		end.run(t).ok(t)
		setuptest.Same(t, before, "%s left traces", end.verb)
		noLeases(t)
		on("ADD", 1, conf).run(t).ok(t)
	}
	setuptest.Run(t, "ip", "link", "delete", "tap0") // as at the end of the virtual machine
	on("DEL", 1, single).run(t).ok(t)
	if left := setuptest.Dump(t); strings.Contains(left, "br0") || strings.Contains(left, "bridgeveth") {
		t.Errorf("something is left: %s", left)
	}
}

// TestExistingVeth checks that a veth pair of another plugin works after ADD: packets pass
// through the gateway, with masquerade, and through a host port.
func TestExistingVeth(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	outside := n.outside(false)
	c := n.containers(2)
	given := setup.End{Namespace: n.Namespace, Interface: "host0"}
	if err := setup.Join(given, setup.End{Namespace: c[0], Interface: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.88.0.77/24")}}); err != nil {
		t.Fatal(err)
	}
	setuptest.In(t, c[0], "ip", "route", "add", "default", "via", "10.88.0.1")
	serve(t, c[0], 80)
	serve(t, outside, 80)
	before := setuptest.Dump(t)
	conf := behind(publishing(single, object{"hostPort": 8080, "containerPort": 80}), object{
		"interfaces": []object{{"name": "host0"}, {"name": "eth0", "sandbox": c[0].Path}},
		"ips":        []object{{"address": "10.88.0.77/24", "interface": 1}},
	})
	delete(conf, "ipam")
	a := on("ADD", 1, conf).run(t).ok(t)
	on("CHECK", 1, checking(conf, a)).run(t).ok(t)
	on("ADD", 2, single).run(t).ok(t)
	if !setuptest.Ping(t, c[1], "10.88.0.77") {
		t.Error("no answer from the container")
	}
	if got := ask(t, c[0], "tcp", "192.0.2.2", 80); got != "192.0.2.1" {
		t.Errorf("a server outside sees %s", got)
	}
	if got := ask(t, outside, "tcp", "192.0.2.1", 8080); got != "192.0.2.2" {
		t.Errorf("through the host port, the container sees client %s", got)
	}
	on("DEL", 1, conf).run(t).ok(t)
	on("DEL", 2, single).run(t).ok(t)
	setuptest.Same(t, before, "DEL left traces")
}

// TestExistingAfterKilled kills the ADD that attaches a tap: in the first round just before ADD sends
// its first netlink message, in the second round just before its second message, and so on. The repeated ADD must succeed,
// or report that the port is already complete. The test checks that DEL then restores the tap.
func TestExistingAfterKilled(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft").containers(1)
	setuptest.Run(t, "sh", "-c", "ip tuntap add tap0 mode tap; ip link set tap0 up")
	before := setuptest.Dump(t)
	conf := behind(single.with(object{"forward": "none", "portIsolation": true, "runtimeConfig": object{
		"bandwidth": limits, "portMappings": []object{{"hostPort": 8080, "containerPort": 80}}, "ips": []string{"10.88.0.9/24"},
	}}), tap)
	check := on("CHECK", 1, checking(conf, on("ADD", 1, conf).run(t).ok(t)))
	on("DEL", 1, conf).run(t).ok(t)
	for at, killed := 1, true; killed; at++ {
		killed = on("ADD", 1, conf).killedAt(t, at)
		if again := on("ADD", 1, conf).run(t); again.err != nil && again.failed(t).Code != 101 {
			t.Errorf("killed at message %d: the next ADD fails: %s", at, again.stdout)
		}
		if a := check.run(t); a.err != nil {
			t.Errorf("killed at message %d: CHECK after the next ADD: %s", at, a.stdout)
		}
		on("DEL", 1, conf).run(t).ok(t)
		if !setuptest.Same(t, before, "killed at message %d, DEL left traces", at) {
			t.FailNow()
		}
	}
	noLeases(t)
}

// TestExistingMistakes checks ADD's errors if prevResult names no link that ADD can attach to the
// bridge.
func TestExistingMistakes(t *testing.T) {
	t.Parallel()
	inside := object{"interfaces": []object{{"name": "tap0"}, {"name": "eth0", "sandbox": "/run/netns/c1"}}}
	for _, tt := range []struct {
		name  string
		keys  object
		given object
		spoil string
		code  uint
		want  string
	}{
		{"no result", nil, nil, "", 7, "prevResult: "},
		{"nothing on the host", nil, object{"interfaces": []object{{"name": "eth0", "sandbox": "/run/netns/c1"}}}, "", 7, "prevResult: it has no interface on the host"},
		{"nothing", nil, object{"interfaces": []any{nil}}, "", 7, "prevResult: interfaces[0]: null instead of an object"},
		{"two links", nil, object{"interfaces": []object{{"name": "tap0"}, {"name": "tap1"}}}, "", 7, "prevResult: it has tap0, tap1 on the host"},
		{"no such link", nil, tap, "ip link delete tap0", 7, "add tap0 to bridge br0: there is no such link on the host"},
		{"on another bridge", nil, tap, "ip link add br1 type bridge; ip link set tap0 master br1", 101, "add tap0 to bridge br0: the link is a port of another bridge or bond"},
		{"a link with the alias of somebody else", nil, tap, "ip link set tap0 alias mine", 101, `add tap0 to bridge br0: the link has the alias "mine"`},
		{"a bridge", nil, tap, "ip link delete tap0; ip link add tap0 type bridge", 104, "add tap0 to bridge br0: "},
		{"addresses for the container's end", nil, inside, "", 7, "ipam: the plugin before bridgeveth configures the interface in the container"},
		{"keys for the container's end", object{"macspoofchk": true, "sysctl": object{"net.ipv4.conf.IFNAME.rp_filter": "0"}}, tap, "", 7, "macspoofchk: the plugin that made tap0"},
		{"without addresses", object{"ipam": object{}}, tap, "", 7, "isGateway: it needs addresses"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newNode(t, single, "nft").containers(1)
			setuptest.Run(t, "sh", "-c", "ip tuntap add tap0 mode tap; "+tt.spoil)
			before := setuptest.Dump(t)
			conf := single.with(tt.keys).with(object{"prevResult": "wrong"})
			if tt.given != nil {
				conf = behind(conf, tt.given)
			}
			if f := on("ADD", 1, conf).run(t).failed(t); f.Code != tt.code || !strings.Contains(f.Msg, tt.want) {
				t.Errorf("got %+v, want code %d, %q", f, tt.code, tt.want)
			}
			setuptest.Same(t, before, "a refused ADD left traces")
			noLeases(t)
		})
	}
}
