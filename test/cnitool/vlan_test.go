package cnitool

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/internal/ptrace"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// newVLANNode calls newNode, and makes a number of containers. If the kernel's bridges cannot
// filter by VLAN, newVLANNode checks that ADD reports this and leaves nothing. It then skips the
// test.
func newVLANNode(t *testing.T, containers int) (*node, []*setup.Namespace) {
	t.Helper()
	n := newNode(t, single, "nft")
	setuptest.Run(t, "sh", "-c", "ip link add probe type bridge; ip link set probe type bridge vlan_filtering 1 || true")
	can := strings.Contains(setuptest.Run(t, "ip", "-d", "link", "show", "probe"), "vlan_filtering 1")
	setuptest.Run(t, "ip", "link", "delete", "probe")
	if can {
		return n, n.containers(containers)
	}
	before := setuptest.Dump(t)
	setuptest.Container(t, "none")
	f := call{verb: "ADD", container: "none", netns: "/run/netns/none", ifname: "eth0", conf: single.with(object{"vlan": 100})}.run(t).failed(t)
	if f.Code != 104 || !strings.Contains(f.Msg, "CONFIG_BRIDGE_VLAN_FILTERING") {
		t.Errorf("got %+v, want code 104 and the kernel's option", f)
	}
	setuptest.Same(t, before, "a failed ADD left traces")
	t.Skip("LISTED SKIP: no VLANs on bridges in this kernel; make test-vm has one with them")
	return nil, nil
}

// vlan returns the configuration of a network on the bridge br0. id is the ID of the network's
// VLAN. The number i selects the subnets: 10.81.0.0/24 and fd81::/64 for 81.
func vlan(i, id int) object {
	return dual.with(object{"name": fmt.Sprint("vlan", id), "vlan": id, "ipam": object{"type": "ipam-simple", "ranges": [][]object{
		{{"subnet": fmt.Sprintf("10.%d.0.0/24", i)}}, {{"subnet": fmt.Sprintf("fd%d::/64", i)}},
	}}})
}

// TestVLAN checks two networks in different VLANs of one bridge. Each network has its own gateway,
// host ports and masquerade. No packet may get from one network to the other, except through the
// gateways.
func TestVLAN(t *testing.T) {
	t.Parallel()
	n, c := newVLANNode(t, 4)
	outside := n.outside(false)
	first, second := vlan(81, 100), vlan(82, 200)
	before := setuptest.Dump(t)
	published := publishing(first, object{"hostPort": 8080, "containerPort": 80})
	on("ADD", 1, published).run(t).ok(t)
	on("ADD", 2, first).run(t).ok(t)
	on("ADD", 3, second).run(t).ok(t)
	serve(t, c[0], 80)
	serve(t, outside, 80)
	setuptest.In(t, c[2], "ip", "addr", "add", "10.81.0.9/24", "dev", "eth0") // an address of the other network
	for _, p := range []struct {
		from *setup.Namespace
		to   string
		want bool
	}{
		{c[0], "10.81.0.1", true}, {c[0], "fd81::1", true}, {c[0], "10.81.0.3", true}, {c[0], "fd81::3", true},
		{c[0], "10.82.0.2", true}, {c[2], "fd81::3", true}, // routed through the gateways
		{c[2], "10.81.0.2", false},
	} {
		if got := setuptest.Ping(t, p.from, p.to); got != p.want {
			t.Errorf("ping from %s to %s: %v", p.from.Path, p.to, got)
		}
	}
	for _, a := range []struct {
		from     *setup.Namespace
		to       string
		port     int
		wantFrom string
	}{
		{c[0], "192.0.2.2", 80, "192.0.2.1"}, {c[0], "2001:db8::2", 80, "2001:db8::1"},
		{outside, "192.0.2.1", 8080, "192.0.2.2"}, {c[2], "192.0.2.1", 8080, "10.81.0.1"}, {n.Namespace, "127.0.0.1", 8080, "10.81.0.1"},
		{c[1], "192.0.2.1", 8080, "10.81.0.1"}, {c[0], "192.0.2.1", 8080, "10.81.0.1"},
	} {
		if got := ask(t, a.from, "tcp", a.to, a.port); got != a.wantFrom {
			t.Errorf("%s:%d sees %s as %q, want %s", a.to, a.port, a.from.Path, got, a.wantFrom)
		}
	}
	a := on("ADD", 4, first.with(object{"ingressPolicy": "same-bridge"})).run(t).ok(t)
	check := on("CHECK", 4, checking(first.with(object{"ingressPolicy": "same-bridge"}), a))
	check.run(t).ok(t)
	port := setup.Attachment{Network: "vlan100", Container: "c4", Interface: "eth0"}.Port()
	for _, spoil := range []string{
		"bridge vlan del dev " + port + " vid 100", "bridge vlan add dev " + port + " vid 100", "bridge vlan add dev " + port + " vid 100 pvid untagged; bridge vlan add dev " + port + " vid 200",
	} {
		setuptest.Run(t, "sh", "-c", spoil)
		if f := check.run(t).failed(t); f.Code != 103 || !strings.Contains(f.Msg, "in VLAN") {
			t.Errorf("%s: CHECK says %+v", spoil, f)
		}
	}
	for i, conf := range []object{first, first, second, first} {
		on("DEL", i+1, conf).run(t).ok(t)
	}
	setuptest.Same(t, before, "DEL left traces")
}

// checking returns conf with the result of an ADD as prevResult, as a runtime passes it to CHECK.
func checking(conf object, a answer) object {
	return conf.with(object{"prevResult": json.RawMessage(a.stdout)})
}

// TestVLANTrunk checks which tagged and untagged frames get from a container to another one, with
// the key vlanTrunk.
func TestVLANTrunk(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		keys   object
		passes map[int]bool // by VLAN; 0 means without a tag
	}{
		{"trunk", object{}, map[int]bool{0: false, 30: true, 41: true, 50: false}},
		{"trunk and native", object{"vlan": 41}, map[int]bool{0: true, 30: true, 50: false}},
		{"trunk, by the reference's name", object{"type": "bridge"}, map[int]bool{0: true, 30: true, 50: false}},
		{"trunk and default", object{"preserveDefaultVlan": true}, map[int]bool{0: true, 30: true, 50: false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conf := object{"type": "bridgeveth", "bridge": "br0", "vlanTrunk": []object{{"id": 30}, {"minID": 40, "maxID": 42}}}.with(tt.keys)
			_, c := newVLANNode(t, 2)
			before := setuptest.Dump(t)
			for i, inside := range c {
				on("CHECK", i+1, checking(conf, on("ADD", i+1, conf).run(t).ok(t))).run(t).ok(t)
				for id := range tt.passes {
					name := "eth0"
					if id != 0 {
						name = fmt.Sprint("eth0.", id)
						setuptest.In(t, inside, "ip", "link", "add", "link", "eth0", "name", name, "type", "vlan", "id", fmt.Sprint(id))
					}
					setuptest.In(t, inside, "ip", "addr", "add", fmt.Sprintf("10.9.%d.%d/24", id, i+1), "dev", name)
					setuptest.In(t, inside, "ip", "link", "set", name, "up")
				}
			}
			for id, want := range tt.passes {
				if got := setuptest.Ping(t, c[0], fmt.Sprintf("10.9.%d.2", id)); got != want {
					t.Errorf("VLAN %d: ping passes: %v, want %v", id, got, want)
				}
			}
			for i := range c {
				on("DEL", i+1, conf).run(t).ok(t)
			}
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}

// TestVLANOnOthersBridge checks a bridge that ADD has not made. ADD must fail while the bridge does
// not filter by VLAN. DEL must leave the bridge as it was before ADD.
func TestVLANOnOthersBridge(t *testing.T) {
	t.Parallel()
	conf := vlan(81, 100)
	_, c := newVLANNode(t, 1)
	setuptest.Run(t, "ip", "link", "add", "br0", "address", "02:00:00:00:00:01", "type", "bridge")
	setuptest.Run(t, "ip", "link", "set", "br0", "addrgenmode", "none")
	before := setuptest.Dump(t)
	if f := on("ADD", 1, conf).run(t).failed(t); f.Code != 101 || !strings.Contains(f.Msg, "vlan_filtering 1") {
		t.Errorf("got %+v, want code 101 and the remedy", f)
	}
	setuptest.Same(t, before, "a refused ADD left traces")
	setuptest.Run(t, "ip", "link", "set", "br0", "up", "type", "bridge", "vlan_filtering", "1")
	state := func() string { return setuptest.Dump(t) + setuptest.Run(t, "bridge", "vlan", "show") }
	before = state()
	on("ADD", 1, conf).run(t).ok(t)
	if !setuptest.Ping(t, c[0], "10.81.0.1") {
		t.Error("no answer from the gateway")
	}
	on("DEL", 1, conf).run(t).ok(t)
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Errorf("DEL left traces (-before +after):\n%s", diff)
	}
}

// TestVLANKilled kills the first ADD and the last DEL on a bridge that ADD has not made. It kills
// the process before a request that changes a link: the first request in the first round, the
// second request in the second round, and so on. For ADD, only the requests count that it sends
// before it has made the bridge port. For DEL, only those count that it sends after it has deleted
// the port. The test checks that the gateways answer after the next ADD, and that the next DEL
// restores the bridge.
func TestVLANKilled(t *testing.T) {
	t.Parallel()
	conf := vlan(81, 100).with(object{"name": "net", "forward": "none", "ipMasq": false})
	exists := func(link string) bool {
		_, err := os.Stat("/sys/class/net/" + link)
		return err == nil
	}
	for verb, begun := range map[string]func() bool{
		"ADD": func() bool { return exists("br0.100") },
		"DEL": func() bool { return true },
	} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			_, c := newVLANNode(t, 1)
			for at, killed := 1, true; killed; at++ {
				setuptest.Run(t, "sh", "-ec", "ip link add br0 address 02:00:00:00:00:01 type bridge vlan_filtering 1; ip link set br0 addrgenmode none; ip link set br0 up")
				state := func() string { return setuptest.Dump(t) + setuptest.Run(t, "bridge", "vlan", "show") }
				before := state()
				if verb == "DEL" {
					on("ADD", 1, conf).run(t).ok(t)
				}
				sent := 0
				killed = on(verb, 1, conf).traced(t, func(c ptrace.Call) bool {
					if changesLink(t, c) && begun() && !exists(portOf) {
						sent++
					}
					return sent < at
				}).err != nil
				if verb == "ADD" && killed {
					on("ADD", 1, conf).run(t).ok(t)
					for _, gateway := range []string{"10.81.0.1", "fd81::1"} {
						if !setuptest.Ping(t, c[0], gateway) {
							t.Errorf("killed at request %d: after the next ADD, no answer from %s", at, gateway)
						}
					}
				}
				on("DEL", 1, conf).run(t).ok(t)
				if diff := cmp.Diff(before, state()); diff != "" {
					t.Errorf("killed at request %d: the next DEL left traces (-before +after):\n%s", at, diff)
				}
				setuptest.Run(t, "ip", "link", "del", "br0")
			}
		})
	}
}

// changesLink reports whether a system call sends a netlink request that changes a link. It also
// returns true for transactions of nf_tables: NFNL_MSG_BATCH_BEGIN is the same number as
// RTM_NEWLINK.
func changesLink(t *testing.T, c ptrace.Call) bool {
	t.Helper()
	if !sends(c) || !strings.HasPrefix(c.File(), "socket:") {
		return false
	}
	header, err := c.Data(unix.NLMSG_HDRLEN)
	if err != nil {
		t.Fatal(err)
	}
	kind := binary.NativeEndian.Uint16(header[4:])
	return kind == unix.RTM_NEWLINK || kind == unix.RTM_DELLINK || kind == unix.RTM_SETLINK
}

// TestVLANRangeChanged changes the address ranges of a network in a VLAN while it has a container.
// The gateway of the new IPv6 range is outside of the range's subnet, so the host needs a route
// through the VLAN link. A second network uses another VLAN of the bridge. The test checks that DEL
// of the container removes the old gateway address from the right VLAN link.
func TestVLANRangeChanged(t *testing.T) {
	t.Parallel()
	n, c := newVLANNode(t, 3)
	before := setuptest.Dump(t)
	other, first := vlan(83, 300), vlan(81, 100)
	second := first.with(object{"gatewayConflict": "add", "ipam": object{"type": "ipam-simple", "ranges": [][]object{
		{{"subnet": "10.82.0.0/24"}}, {{"subnet": "fd82::/64", "gateway": "fe80::1"}},
	}}})
	on("ADD", 3, other).run(t).ok(t)
	on("ADD", 1, first).run(t).ok(t)
	on("ADD", 2, second).run(t).ok(t)
	for _, p := range []struct {
		from *setup.Namespace
		to   string
	}{{c[0], "10.81.0.1"}, {c[0], "fd81::1"}, {c[1], "10.82.0.1"}, {c[1], "fe80::1%eth0"}, {n.Namespace, "fd82::1"}, {c[2], "10.83.0.1"}} {
		if !setuptest.Ping(t, p.from, p.to) {
			t.Errorf("%s gets no answer from %s", p.from.Path, p.to)
		}
	}
	on("DEL", 1, second).run(t).ok(t)
	got, err := setup.Addresses(n.Namespace, "br0.100")
	if want := "[10.82.0.1/24]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("the VLAN link has %v, %v, want %s", got, err, want)
	}
	if got, err := setup.Addresses(n.Namespace, "br0.300"); err != nil || len(got) != 2 {
		t.Errorf("the other VLAN link has %v, %v", got, err)
	}
	on("DEL", 2, second).run(t).ok(t)
	on("DEL", 3, other).run(t).ok(t)
	setuptest.Same(t, before, "DEL left traces")
}

// TestVLANOfExistingLink checks ADD, CHECK and DEL for a link that another plugin has made, on a
// network in a VLAN.
func TestVLANOfExistingLink(t *testing.T) {
	t.Parallel()
	newVLANNode(t, 1)
	setuptest.Run(t, "ip", "link", "add", "tap0", "up", "type", "veth", "peer", "name", "machine")
	before := setuptest.Dump(t)
	conf := behind(vlan(81, 100).with(object{"vlanTrunk": []object{{"id": 30}, {"minID": 40, "maxID": 42}}}), tap)
	on("CHECK", 1, checking(conf, on("ADD", 1, conf).run(t).ok(t))).run(t).ok(t)
	on("DEL", 1, conf).run(t).ok(t)
	setuptest.Same(t, before, "DEL left traces")
}

// TestVLANOnEmptiedBridge checks a bridge whose only port was deleted. The kernel then sets the
// bridge's MAC address to zero. After ADD, the gateway on the VLAN link must answer.
func TestVLANOnEmptiedBridge(t *testing.T) {
	t.Parallel()
	conf := vlan(81, 100)
	_, c := newVLANNode(t, 1)
	setuptest.Run(t, "sh", "-ec", "ip link add br0 up type bridge vlan_filtering 1; ip link add p type veth peer name q; ip link set p master br0; ip link del p")
	if got := bridgeMAC(t); got != "00:00:00:00:00:00" {
		t.Fatalf("the bridge has MAC %s", got)
	}
	on("CHECK", 1, checking(conf, on("ADD", 1, conf).run(t).ok(t))).run(t).ok(t)
	if !setuptest.Ping(t, c[0], "10.81.0.1") {
		t.Errorf("no answer from the gateway: %s", setuptest.Run(t, "ip", "link"))
	}
	on("DEL", 1, conf).run(t).ok(t)
}

// TestVLANsOfReference checks that the reference plugin bridge, and bridgeveth under this name, put
// a port into the same VLANs. It uses bridges with different default VLANs.
func TestVLANsOfReference(t *testing.T) {
	t.Parallel()
	bridge := func(pvid int) string {
		return fmt.Sprintf("ip link add br0 up type bridge vlan_filtering 1 vlan_default_pvid %d", pvid)
	}
	trunk := []object{{"id": 30}, {"minID": 40, "maxID": 42}}
	for _, tt := range []struct{ name, bridge string }{
		{"its own bridge", "true"}, {"default VLAN 1", bridge(1)}, {"default VLAN 50", bridge(50)}, {"no default VLAN", bridge(0)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newVLANNode(t, 1)
			for _, keys := range []object{
				{"vlan": 100}, {"vlan": 1}, {"vlan": 100, "vlanTrunk": trunk}, {"vlanTrunk": trunk}, {"vlanTrunk": []object{{"id": 1}, {"id": 30}}},
			} {
				for _, preserve := range []bool{false, true} {
					conf := object{"type": "bridge", "bridge": "br0", "preserveDefaultVlan": preserve}.with(keys)
					setuptest.Run(t, "sh", "-c", tt.bridge)
					got := map[string]string{}
					for _, program := range []string{"bridge", "bridgeveth"} {
						add := on("ADD", 1, conf)
						add.program = program
						a := add.run(t).ok(t)
						var result struct{ Interfaces []struct{ Name string } }
						if err := json.Unmarshal(a.stdout, &result); err != nil {
							t.Fatal(err)
						}
						port := result.Interfaces[1].Name
						got[program] = strings.ReplaceAll(setuptest.Run(t, "bridge", "-j", "vlan", "show", "dev", port), port, "PORT")
						if program == "bridgeveth" {
							on("CHECK", 1, checking(conf, a)).run(t).ok(t)
						}
						add.verb = "DEL"
						add.run(t).ok(t)
					}
					if diff := cmp.Diff(got["bridge"], got["bridgeveth"]); diff != "" {
						t.Errorf("%v, preserveDefaultVlan %v (-reference +ours):\n%s", keys, preserve, diff)
					}
					setuptest.Run(t, "sh", "-c", "ip link del br0 || true")
				}
			}
		})
	}
}
