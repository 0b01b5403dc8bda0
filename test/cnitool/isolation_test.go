package cnitool

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/attack"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// isolationSettings are the columns of the table in docs/isolation.md. Each column is for a network
// with the given configuration keys.
var isolationSettings = []struct {
	name string
	keys object
}{
	{"no key", nil},
	{"`same-bridge`", object{"ingressPolicy": "same-bridge"}},
	{"`macspoofchk`", object{"macspoofchk": true}},
	{"`ipspoofchk`", object{"ipspoofchk": true}},
	{"`isolated`", object{"ingressPolicy": "isolated"}},
	{"`isolated`, `macspoofchk` off", object{"ingressPolicy": "isolated", "macspoofchk": false}},
}

// isolationPage is the page with the table of attacks. Two HTML comments in the page mark the
// beginning and the end of the table.
const isolationPage = "../../docs/isolation.md"

// TestIsolation makes each attack with each setting. It checks that the results are equal to the
// table in docs/isolation.md. With the flag -update, the test writes the table.
func TestIsolation(t *testing.T) {
	t.Parallel()
	results := make([][]string, len(isolationSettings))
	limited := make([]bool, len(isolationSettings))
	t.Run("settings", func(t *testing.T) {
		for i, setting := range isolationSettings {
			t.Run(setting.name, func(t *testing.T) {
				t.Parallel()
				n := newNode(t, nil, "nft")
				a := attack.NewArena(t, n.Namespace, setting.keys, func(container string, conf map[string]any, hostPorts ...int) {
					add := call{verb: "ADD", container: container, netns: "/run/netns/" + container, ifname: "eth0", conf: conf}
					for _, port := range hostPorts {
						add.conf = publishing(add.conf, object{"hostPort": port, "containerPort": 80})
					}
					add.run(t).ok(t)
				})
				if setting.keys == nil {
					a.Unprotected()
				}
				limited[i] = bridgeSetting(t, "br0", maxLearned) != nil
				for _, row := range attack.Attacks {
					results[i] = append(results[i], row.Make(a))
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	page, err := os.ReadFile(isolationPage)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- written by TestIsolation -->\n", "<!-- end -->\n"
	before, rest, _ := strings.Cut(string(page), begin)
	want, after, found := strings.Cut(rest, end)
	if !found {
		t.Fatalf("%s: %q or %q is missing", isolationPage, begin, end)
	}
	got := isolationTable(results)
	if !limited[0] { // Linux before 6.7
		want = strings.ReplaceAll(want, attack.Capped, attack.Succeeds)
	} else if *update {
		if err := os.WriteFile(isolationPage, []byte(before+begin+got+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		want = got
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-page +attacks):\n%s", isolationPage, diff)
	}
}

// isolationTable returns the table of docs/isolation.md as Markdown. The result of an attack is
// results[column][row].
func isolationTable(results [][]string) string {
	var table strings.Builder
	table.WriteString("| Attack |")
	for _, setting := range isolationSettings {
		fmt.Fprintf(&table, " %s |", setting.name)
	}
	table.WriteString("\n| --- |" + strings.Repeat(" --- |", len(isolationSettings)) + "\n")
	for row, made := range attack.Attacks {
		fmt.Fprintf(&table, "| %s |", made.Name)
		for column := range isolationSettings {
			fmt.Fprintf(&table, " %s |", results[column][row])
		}
		table.WriteString("\n")
	}
	return table.String()
}

// These are numbers of bridge attributes, from linux/if_link.h.
const (
	multiBoolopt = 46 // IFLA_BR_MULTI_BOOLOPT: the values of options, followed by a mask of the options that the kernel supports
	maxLearned   = 49 // IFLA_BR_FDB_MAX_LEARNED
)

// bridgeSetting returns the value of the bridge attribute with the given number. It returns nil if
// the kernel does not support the attribute.
func bridgeSetting(t testing.TB, bridge string, number uint16) (value []byte) {
	t.Helper()
	for _, setting := range bridgeSettings(t, bridge) {
		if setting.Attr.Type == number {
			value = setting.Value
		}
	}
	return value
}

// bridgeSettings returns all attributes of a bridge, as rtnetlink sends them.
func bridgeSettings(t testing.TB, bridge string) []syscall.NetlinkRouteAttr {
	t.Helper()
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(bridge)))
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		t.Fatal(err)
	}
	attrs := answers[0][unix.SizeofIfInfomsg:]
	for _, kind := range []uint16{unix.IFLA_LINKINFO, nl.IFLA_INFO_DATA} {
		list, err := nl.ParseRouteAttr(attrs)
		if err != nil {
			t.Fatal(err)
		}
		for _, attr := range list {
			if attr.Attr.Type == kind {
				attrs = attr.Value
			}
		}
	}
	list, err := nl.ParseRouteAttr(attrs)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// setBridge changes one attribute of a bridge.
func setBridge(t testing.TB, bridge string, number int, value []byte) {
	t.Helper()
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(bridge)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(number, value)
	req.AddData(info)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		t.Fatal(err)
	}
}

// learningOf returns how many MAC addresses a bridge may learn (0 for no limit). It also returns
// whether the bridge learns from link-local frames, such as BPDUs.
func learningOf(t testing.TB, bridge string) (limit uint32, linkLocal bool) {
	t.Helper()
	if value := bridgeSetting(t, bridge, maxLearned); value != nil {
		limit = binary.NativeEndian.Uint32(value)
	}
	return limit, bridgeSetting(t, bridge, multiBoolopt)[0]&1 == 0
}

// TestLearning removes the limits on the learning of MAC addresses from a bridge that ADD has made.
// It checks that CHECK and the doctor report this, and that repair restores the limits. An
// administrator's own limit stays.
func TestLearning(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := n.containers(1)
	n.must("add", c...)
	limits := func(when string, limit uint32) {
		t.Helper()
		if bridgeSetting(t, "br0", maxLearned) == nil {
			limit = 0 // Linux before 6.7
		}
		if got, linkLocal := learningOf(t, "br0"); got != limit || linkLocal {
			t.Errorf("%s: the bridge learns up to %d addresses, want %d; or it learns from link-local frames", when, got, limit)
		}
	}
	limits("after ADD", 4096)
	missing := []string{"no_linklocal_learn of bridge br0"}
	setBridge(t, "br0", multiBoolopt, []byte{0, 0, 0, 0, 1, 0, 0, 0}) // little-endian, like all machines on which the tests run
	if bridgeSetting(t, "br0", maxLearned) != nil {
		missing = append(missing, "limit of learned addresses of bridge br0")
		setBridge(t, "br0", maxLearned, make([]byte, 4))
	}
	err := n.cnitool("check", c[0])
	found, _ := bvctl(t, "doctor")
	repaired, _ := bvctl(t, "repair")
	for _, what := range missing {
		if err == nil || !strings.Contains(err.Error(), what+": missing") {
			t.Errorf("CHECK does not name %s: %v", what, err)
		}
		if !strings.Contains(found, what) || !strings.Contains(repaired, what) {
			t.Errorf("%s is not named by doctor or repair:\n%s%s", what, found, repaired)
		}
	}
	limits("after repair", 4096)
	n.must("check", c...)
	if bridgeSetting(t, "br0", maxLearned) != nil {
		setBridge(t, "br0", maxLearned, binary.NativeEndian.AppendUint32(nil, 70000))
		n.must("check", c...)
		n.must("del", c...)
	}
}

// TestLearningElsewhere checks that ADD sets no limit on the learning of MAC addresses if it has
// not made the bridge. A container can then fill the bridge's forwarding table.
func TestLearningElsewhere(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	setuptest.Run(t, "ip", "link", "add", "br0", "type", "bridge")
	c := n.containers(1)
	n.must("add", c...)
	n.must("check", c...)
	a := &attack.Arena{T: t, Host: n.Namespace, Attacker: c[0]}
	if got := [2]int{a.Fill(attack.MACOf(t, n.Namespace, "br0"), 0), a.Fill(attack.LLDPGroup, 1)}; got != [2]int{attack.Sources, attack.Sources} {
		t.Errorf("of %d addresses the bridge has learned %d, and %d from link-local frames; want all", attack.Sources, got[0], got[1])
	}
	n.must("check", c...)
	n.must("del", c...)
}

// TestBPDUGuard switches STP on for the bridge and sends a BPDU from a container. It checks that
// the bridge disables the container's port, that CHECK and the doctor report the cause, and that
// repair enables the port again.
func TestBPDUGuard(t *testing.T) {
	t.Parallel()
	n := newNode(t, single.with(object{"macspoofchk": true}), "nft")
	c := n.containers(1)
	n.must("add", c...)
	if root := (&attack.Arena{T: t, Host: n.Namespace, Attacker: c[0]}).IsRoot(); root {
		t.Fatal("the container is the root of the spanning tree")
	}
	setuptest.Run(t, "ip", "link", "set", "br0", "type", "bridge", "stp_state", "0") // with STP, the port would take seconds to forward
	if err := n.cnitool("check", c[0]); err == nil || !strings.Contains(err.Error(), "disabled by its BPDU guard") {
		t.Errorf("CHECK: got %v, want the BPDU guard", err)
	}
	if setuptest.Ping(t, c[0], "10.88.0.1") {
		t.Error("the port is not disabled")
	}
	if out, status := bvctl(t, "doctor"); status == 0 || !strings.Contains(out, "disabled by its BPDU guard") {
		t.Errorf("doctor: status %d: %s", status, out)
	}
	if out, _ := bvctl(t, "inspect"); !strings.Contains(out, "not forwarding") {
		t.Errorf("inspect: %s", out)
	}
	if out, status := bvctl(t, "repair"); status != 0 || !strings.Contains(out, "settings of port") {
		t.Errorf("repair: status %d: %s", status, out)
	}
	n.must("check", c...)
	// After the repair, the kernel may take a second to report the carrier of the container's
	// interface.
	harness.Await(t, "an answer from the gateway after repair", func() bool { return setuptest.Ping(t, c[0], "10.88.0.1") })
	n.must("del", c...)
}

// TestGuardByDefault checks which source filter (guard) the containers of isolated networks get by
// default.
func TestGuardByDefault(t *testing.T) {
	t.Parallel()
	isolated := object{"ingressPolicy": "isolated"}
	layer2 := object{"type": "bridgeveth", "bridge": "br0"}
	for _, tt := range []struct {
		name string
		conf object
		want string // the chain of the port; "" for no guard
	}{
		{"open", single, ""},
		{"isolated", single.with(isolated), "guard_address"},
		{"isolated, no check of MAC addresses", single.with(isolated).with(object{"macspoofchk": false}), ""},
		{"isolated, no check of IP addresses", single.with(isolated).with(object{"ipspoofchk": false}), "guard_mac"},
		{"isolated, check of IP addresses alone", single.with(isolated).with(object{"macspoofchk": false, "ipspoofchk": true}), "guard_address"},
		{"isolated, macspoofchk set to its default", single.with(isolated).with(object{"macspoofchk": true}), "guard_address"},
		{"isolated layer 2", layer2.with(isolated), "guard_mac"},
		{"isolated layer 2, no check", layer2.with(isolated).with(object{"macspoofchk": false}), ""},
		{"isolated tap", behind(single.with(isolated), tap), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newNode(t, tt.conf, "nft").containers(1)
			setuptest.Run(t, "ip", "tuntap", "add", "tap0", "mode", "tap")
			setuptest.Run(t, "ip", "link", "set", "tap0", "up")
			before := setuptest.Dump(t)
			a := on("ADD", 1, tt.conf).run(t).ok(t)
			on("CHECK", 1, checking(tt.conf, a)).run(t).ok(t)
			rules := setuptest.Run(t, "nft", "list", "ruleset")
			if tt.want == "" && strings.Contains(rules, "guard") || tt.want != "" && !strings.Contains(rules, "goto "+tt.want) {
				t.Errorf("want the guard %q in %s", tt.want, rules)
			}
			on("DEL", 1, tt.conf).run(t).ok(t)
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}

// TestGuardOfOlder checks an isolated network with a container that an older build has attached
// without a guard. CHECK must succeed for this container, before and after the next ADD. For a
// container that the current build has attached, CHECK must report the missing guard.
func TestGuardOfOlder(t *testing.T) {
	t.Parallel()
	conf := single.with(object{"ingressPolicy": "isolated"})
	newNode(t, conf, "nft").containers(2)
	a := on("ADD", 1, conf.with(object{"macspoofchk": false})).run(t).ok(t)
	setuptest.Run(t, "ip", "link", "set", portOf, "address", "02:2a:f5:25:ed:d6")
	check := on("CHECK", 1, checking(conf, a))
	check.run(t).ok(t)
	on("ADD", 2, conf).run(t).ok(t)
	check.run(t).ok(t)
	setuptest.Run(t, "ip", "link", "set", portOf, "address", "fe:2a:f5:25:ed:d6")
	for _, want := range []string{"port " + portOf + " guarded: is false", "BPDU guard of port " + portOf + ": is false"} {
		if f := check.run(t).failed(t); f.Code != 103 || !strings.Contains(f.Msg, want) {
			t.Errorf("got %+v, want code 103, %q", f, want)
		}
	}
}
