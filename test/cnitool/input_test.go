package cnitool

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/internal/ptrace"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// ipamKeys returns the configuration of a network with masquerade. The parameter keys has the keys
// of ipam-simple, such as the subnet.
func ipamKeys(keys object) object {
	return single.with(object{"ipam": object{"type": "ipam-simple"}.with(keys)})
}

// TestBadInput makes one mistake in the input at a time. It checks that the error has a fixed code
// and names the key, the value and the remedy, and that the host is unchanged.
func TestBadInput(t *testing.T) {
	t.Parallel()
	own := func(c *call) { c.netns = "/proc/self/ns/net" }
	for _, tt := range []struct {
		name  string
		conf  object
		spoil func(testing.TB)
		call  func(*call)
		code  uint
		want  []string
	}{
		{name: "misspelt key", conf: single.with(object{"isGatewya": true}), code: 2, want: []string{"isGatewya", "true", `did you mean "isGateway"?`}},
		{name: "misspelt key of ipam", conf: ipamKeys(object{"subnte": "10.1.0.0/16"}), code: 2, want: []string{"ipam.subnte", "10.1.0.0/16", `"subnet"`}},
		{name: "wrong type", conf: single.with(object{"mtu": "large"}), code: 7, want: []string{`mtu: "large"`, "a number"}},
		{name: "name too long", conf: single.with(object{"name": strings.Repeat("n", 201)}), code: 7, want: []string{"name: nnn", "201", "200"}},
		{name: "mtu too small", conf: single.with(object{"mtu": 67}), code: 7, want: []string{"mtu: 67", "between 68 and 65535"}},
		{name: "mtu too large", conf: single.with(object{"mtu": 65536}), code: 7, want: []string{"mtu: 65536"}},
		{name: "mtu too small for IPv6", conf: dual.with(object{"mtu": 1279}), code: 7, want: []string{"mtu: 1279", "1280"}},
		{name: "forwardChains", conf: single.with(object{"forwardChains": []string{"filter forward"}}), code: 7, want: []string{"forwardChains[0]", `"filter forward"`, "inet filter forward"}},
		{name: "a chain that is not there", conf: single.with(object{"forwardChains": []string{"inet mine fw"}}), code: 7, want: []string{"forwardChains", "no chain inet mine fw", "load its table before"}},
		{name: "forwardMark", conf: single.with(object{"forwardMark": "0"}), code: 7, want: []string{"forwardMark", `"0"`, "0x100000"}},
		{name: "inbound", conf: single.with(object{"inbound": "no"}), code: 7, want: []string{"inbound", `"no"`, "open, established"}},
		{name: "forward", conf: single.with(object{"forward": "maybe"}), code: 7, want: []string{"forward", `"maybe"`, "auto, iptables, firewalld, sysctl, none"}},
		{name: "bridge name too long", conf: single.with(object{"bridge": "a-name-of-sixteen"}), code: 7, want: []string{"bridge", "a-name-of-sixteen", "15"}},
		{name: "bridge name with a slash", conf: single.with(object{"bridge": "a/b"}), code: 7, want: []string{"bridge", "a/b"}},
		{name: "bridge name with a format for a number", conf: single.with(object{"bridge": "br%d"}), code: 7, want: []string{`bridge: "br%d"`, "%d by a number", "letters and digits"}},
		{name: "bridge name that sysctls use", conf: single.with(object{"bridge": "all"}), code: 7, want: []string{`bridge: "all"`, "below /proc/sys/net"}},
		{name: "bridge is lo", conf: single.with(object{"bridge": "lo"}), code: 101, want: []string{`lo is of type "none"`, "not a bridge"}},
		{name: "bridge name that is a pattern", conf: single.with(object{"bridge": "br+"}), code: 7, want: []string{`bridge: "br+"`, "iptables", "letters and digits"}},
		{name: "STATUS, bridge name that is a pattern", conf: single.with(object{"bridge": "br+"}), call: func(c *call) { c.verb = "STATUS" }, code: 7, want: []string{`bridge: "br+"`}},
		{name: "every mistake at once", conf: single.with(object{"mtu": -1, "forward": "no", "bridge": "a b"}), code: 7, want: []string{"mtu: -1", `forward: "no"`, `bridge: "a b"`}},
		{name: "mistakes of every kind at once", conf: ipamKeys(object{"subnet": "ten", "rangeStrat": "10.1.0.9", "sticky": 7}).with(object{
			"isGatway": true, "mtu": -5, "vlan": 9999, "ipMasq": "yes", "runtimeConfig": object{"mac": "x", "bandwidth": object{"ingressRate": 1}},
		}), code: 2, want: []string{"isGatway: unknown key", "mtu: -5", "vlan: 9999", "ipMasq: a JSON string", `runtimeConfig.mac: "x"`, "ingressRate: 1",
			"ipam.subnet: \"ten\"", "ipam.rangeStrat: unknown key", "ipam.sticky: a JSON number"}},
		{name: "STATUS, mistakes of every kind at once", conf: ipamKeys(object{"rangeStrat": "10.1.0.9"}).with(object{"isGatway": true, "mtu": -5}),
			call: func(c *call) { c.verb = "STATUS" }, code: 2, want: []string{"isGatway", "mtu: -5", "ipam.rangeStrat", "ipam.ranges: no range is configured"}},
		{name: "gateway without addresses", conf: object{"type": "bridgeveth", "isGateway": true}, code: 7, want: []string{"isGateway", "ipam"}},
		{name: "bridge is a veth", conf: single, spoil: func(t testing.TB) {
			setuptest.Run(t, "ip", "link", "add", "br0", "type", "veth", "peer", "name", "br1")
		}, code: 101, want: []string{"br0", "veth", "not a bridge"}},
		{name: "another address on the bridge", conf: single, spoil: func(t testing.TB) {
			setuptest.Run(t, "ip", "link", "add", "br0", "type", "bridge")
			setuptest.Run(t, "ip", "addr", "add", "10.99.0.1/24", "dev", "br0")
		}, code: 101, want: []string{"br0", "10.99.0.1/24", `set "gatewayConflict" to "replace"`}},
		{name: "no room for a gateway", conf: ipamKeys(object{"subnet": "10.1.0.0/32"}), code: 7, want: []string{"isGateway", "10.1.0.0/32", `"gateway"`}},
		{name: "misspelt key of a range", conf: ipamKeys(object{"ranges": [][]object{{{"subnet": "10.1.0.0/16", "rangeBegin": "10.1.0.9"}}}}),
			code: 2, want: []string{"ipam.ranges[0][0].rangeBegin", "10.1.0.9"}},
		{name: "subnet with host bits", conf: ipamKeys(object{"subnet": "10.1.2.3/16"}), code: 7, want: []string{"ipam.subnet", "10.1.2.3/16", "10.1.0.0/16"}},
		{name: "no subnet", conf: ipamKeys(object{"subnet": "ten"}), code: 7, want: []string{"ipam.subnet", `"ten"`}},
		{name: "gateway that is the network's address", conf: ipamKeys(object{"subnet": "10.1.0.0/16", "gateway": "10.1.0.0"}), code: 7, want: []string{"ipam.gateway", "10.1.0.0 is not a usable address", "10.1.0.1 to"}},
		{name: "gateway of the other family", conf: ipamKeys(object{"subnet": "10.1.0.0/16", "gateway": "fe80::1"}), code: 7, want: []string{"ipam.gateway", "fe80::1", "10.1.0.0/16"}},
		{name: "multicast address as gateway", conf: ipamKeys(object{"subnet": "fd00::/64", "gateway": "ff02::2"}), code: 7, want: []string{"ipam.gateway", "ff02::2", "fd00::/64"}},
		{name: "overlap", conf: ipamKeys(object{"ranges": [][]object{{{"subnet": "10.1.0.0/16"}}, {{"subnet": "10.1.2.0/24"}}}}), code: 7, want: []string{"ipam.ranges", "overlap"}},
		{name: "no range", conf: ipamKeys(object{}), code: 7, want: []string{"ipam.ranges"}},
		{name: "resolvConf unreadable", conf: ipamKeys(object{"subnet": "10.1.0.0/16", "resolvConf": "/none"}), code: 7, want: []string{"ipam.resolvConf", "/none"}},
		{name: "IPAM plugin missing", conf: single.with(object{"ipam": object{"type": "nobody"}}), code: 7, want: []string{"ipam.type", "nobody", "CNI_PATH"}},
		{name: "IPAM plugin by path", conf: single.with(object{"ipam": object{"type": "../x"}}), code: 7, want: []string{"ipam.type", "../x"}},
		{name: "IPAM plugin fails", conf: single.with(object{"ipam": object{"type": "host-local", "subnet": "10.1.2.3/16"}}), code: 105, want: []string{"host-local", "10.1.0.0"}},
		{name: "no such namespace", conf: single, call: func(c *call) { c.netns = "/run/netns/none" }, code: 8, want: []string{"CNI_NETNS", "/run/netns/none"}},
		{name: "no namespace", conf: single, call: func(c *call) { c.netns = "/run/file" }, spoil: func(t testing.TB) {
			if err := os.WriteFile("/run/file", nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, code: 8, want: []string{"CNI_NETNS", "/run/file"}},
		{name: "our own namespace", conf: single, call: own, code: 8, want: []string{"CNI_NETNS", "host's own", "CNI_NETNS_OVERRIDE=1"}},
		{name: "our own namespace, DEL", conf: single, call: func(c *call) { own(c); c.verb = "DEL" }, code: 8, want: []string{"CNI_NETNS", "host's own"}},
		{name: "interface name taken", conf: single, spoil: func(t testing.TB) {
			setuptest.Run(t, "ip", "-n", "c1", "link", "add", "eth0", "type", "bridge")
		}, code: 101, want: []string{"eth0", "/run/netns/c1"}},
		{name: "interface name too long", conf: single, call: func(c *call) { c.ifname = "a-name-of-sixteen" }, code: 4, want: []string{`CNI_IFNAME="a-name-of-sixteen"`}},
		{name: "interface name with a format for a number", conf: single, call: func(c *call) { c.ifname = "eth%d" }, code: 4, want: []string{`CNI_IFNAME: "eth%d"`, "%d by a number", "such as eth0"}},
		{name: "interface name with a percent sign", conf: single, call: func(c *call) { c.ifname = "eth%" }, code: 4, want: []string{`CNI_IFNAME: "eth%"`, "refuses every other name with %"}},
		{name: "interface name all", conf: single, call: func(c *call) { c.ifname = "all" }, code: 4, want: []string{`CNI_IFNAME: "all"`, "below /proc/sys/net"}},
		{name: "interface name default", conf: single, call: func(c *call) { c.ifname = "default" }, code: 4, want: []string{`CNI_IFNAME: "default"`}},
		{name: "interface name lo", conf: single, call: func(c *call) { c.ifname = "lo" }, code: 101, want: []string{"lo in network namespace /run/netns/c1", "the name is taken"}},
		{name: "container ID too long", conf: single, call: func(c *call) { c.container = strings.Repeat("x", 4097) }, code: 4, want: []string{"CNI_CONTAINERID: xxx", "4097", "4096"}},
		{name: "STATUS, bridge is a veth", conf: single, call: func(c *call) { c.verb = "STATUS" }, spoil: func(t testing.TB) {
			setuptest.Run(t, "ip", "link", "add", "br0", "type", "veth", "peer", "name", "br1")
		}, code: 50, want: []string{"br0", "veth", "not a bridge"}},
		{name: "STATUS, wrong key", conf: single.with(object{"mtu": 1}), call: func(c *call) { c.verb = "STATUS" }, code: 7, want: []string{"mtu: 1"}},
		{name: "STATUS, no IPAM plugin", conf: single.with(object{"ipam": object{"type": "nobody"}}), call: func(c *call) { c.verb = "STATUS" }, code: 7, want: []string{"ipam.type", "nobody"}},
		{name: "STATUS, store not writable", conf: ipamKeys(object{"subnet": "10.88.0.0/24", "dataDir": "/run/ro/leases"}), call: func(c *call) { c.verb = "STATUS" }, spoil: func(t testing.TB) {
			setuptest.Run(t, "sh", "-c", "mkdir /run/ro && mount -t tmpfs -o ro none /run/ro")
		}, code: 5, want: []string{"ipam.dataDir"}},
		{name: "STATUS, bridge without VLAN filtering", conf: single.with(object{"vlan": 7}), call: func(c *call) { c.verb = "STATUS" }, spoil: func(t testing.TB) {
			setuptest.Run(t, "ip", "link", "add", "br0", "type", "bridge")
		}, code: 50, want: []string{"br0", "vlan_filtering 1"}},
		{name: "iptables fails", conf: single, spoil: func(t testing.TB) { setuptest.DropForward(t, "iptables-legacy"); failingIPTables(t) }, code: 104, want: []string{"iptables", "no luck"}},
		{name: "bridge with STP", conf: single, spoil: func(t testing.TB) {
			setuptest.Run(t, "ip", "link", "add", "br0", "up", "address", "02:00:00:00:00:01", "type", "bridge", "stp_state", "1")
		}, code: 104, want: []string{"does it run STP?"}},
		{name: "host port of the other family", conf: publishing(single, object{"hostPort": 80, "containerPort": 80, "hostIP": "::"}), code: 7, want: []string{"runtimeConfig.portMappings", "host port tcp *:80 needs an IPv6 address"}},
		{name: "host port without addresses", conf: publishing(object{"type": "bridgeveth"}, object{"hostPort": 80, "containerPort": 80}), code: 7, want: []string{"runtimeConfig.portMappings: it needs addresses", `set "ipam"`}},
		{name: "unreachable gateway", conf: ipamKeys(object{"subnet": "10.88.0.0/24", "routes": []object{{"dst": "192.0.2.0/24", "gw": "198.51.100.1"}}}),
			code: 104, want: []string{"192.0.2.0/24", "198.51.100.1"}},
		{name: "two addresses in an old result", conf: single.with(object{"cniVersion": "0.2.0", "ipam": object{
			"type": "static", "addresses": []object{{"address": "10.1.0.2/16"}, {"address": "10.2.0.2/16"}},
		}, "isDefaultGateway": false}), code: 105, want: []string{"static"}},
		{name: "no addresses in an old result", conf: object{"type": "bridgeveth", "cniVersion": "0.2.0"}, code: 7, want: []string{"0.2.0", "ipam"}},
		{name: "store damaged", conf: ipamKeys(object{"subnet": "10.88.0.0/24", "dataDir": "/run/leases"}), spoil: func(t testing.TB) {
			setuptest.Run(t, "sh", "-c", "mkdir /run/leases; : >/run/leases/leases-$(cat /proc/sys/kernel/random/boot_id).db")
		}, code: 5, want: []string{"ipam.dataDir", "/run/leases/leases-", "damaged"}},
		{name: "store not writable", conf: ipamKeys(object{"subnet": "10.88.0.0/24", "dataDir": "/proc/leases"}), code: 5, want: []string{"ipam.dataDir", "/proc/leases"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, tt.conf, "nft")
			n.containers(1)
			if tt.spoil != nil {
				tt.spoil(t)
			}
			c := on("ADD", 1, tt.conf)
			if tt.call != nil {
				tt.call(&c)
			}
			before := setuptest.Dump(t)
			f := c.run(t).failed(t)
			version, _ := tt.conf["cniVersion"].(string)
			if version == "" {
				version = "1.1.0"
			}
			if f.Code != tt.code || f.CNIVersion != version {
				t.Errorf("got code %d of version %q, want %d of %s: %s", f.Code, f.CNIVersion, tt.code, version, f.Msg)
			}
			for _, want := range tt.want {
				if !strings.Contains(f.Msg+f.Details, want) {
					t.Errorf("%q is not in %+v", want, f)
				}
			}
			setuptest.Same(t, before, "it left traces")
			if !strings.HasPrefix(tt.name, "store") {
				noLeases(t)
			}
		})
	}
}

// failingIPTables replaces all forms of iptables by a program that fails to add rules.
func failingIPTables(t testing.TB) {
	t.Helper()
	setuptest.Run(t, "sh", "-c", `
		printf '#!/bin/sh\ncase "$*" in *-A*|*-I*|*-N*) echo no luck >&2; exit 1;; esac; exec xtables-legacy-multi iptables "$@"\n' >/run/failing; chmod +x /run/failing
		mkdir /run/sbin; cp -P /usr/sbin/* /run/sbin/
		for name in iptables iptables-legacy; do rm -f /run/sbin/$name; cp /run/failing /run/sbin/$name; done
		mount --bind /run/sbin /usr/sbin`)
}

// TestOwnNamespace checks the attachment of the host's own network namespace, with
// CNI_NETNS_OVERRIDE.
func TestOwnNamespace(t *testing.T) {
	t.Parallel()
	newNode(t, single, "nft")
	before := setuptest.Dump(t)
	for _, word := range []string{"1", "True"} {
		c := call{verb: "ADD", container: "own", netns: "/proc/self/ns/net", ifname: "eth7", conf: single, before: []string{"env", "CNI_NETNS_OVERRIDE=" + word}}
		result := c.run(t).ok(t)
		if out := setuptest.Run(t, "ip", "addr", "show", "eth7"); !strings.Contains(out, "inet 10.88.0.") {
			t.Errorf("eth7 is %s", out)
		}
		c.verb, c.conf = "CHECK", checking(single, result)
		c.run(t).ok(t)
		c.verb = "DEL"
		c.run(t).ok(t)
		setuptest.Run(t, "ip", "route", "flush", "cache")
		setuptest.Same(t, before, "DEL left traces")
	}
}

// TestPoolExhausted checks ADD's error if all addresses of a range are leased. When the namespace
// of a container is gone, the next ADD must take over the container's address, even without a DEL.
func TestPoolExhausted(t *testing.T) {
	t.Parallel()
	conf := ipamKeys(object{"subnet": "10.88.0.0/30"}) // one address besides the gateway
	n := newNode(t, conf, "nft")
	n.containers(2)
	dying := on("ADD", 3, conf)
	setuptest.Run(t, "sh", "-c", "touch "+dying.netns+" && unshare --net="+dying.netns+" true") // no process is in the namespace
	dying.run(t).ok(t)
	before := setuptest.Dump(t)
	f := on("ADD", 2, conf).run(t).failed(t)
	if f.Code != 100 || !strings.Contains(f.Msg, "10.88.0.1-10.88.0.2 (1 of 1 leased)") {
		t.Errorf("got %+v, want code 100 and the range", f)
	}
	c, err := setup.OpenNamespace(dying.netns)
	if err != nil {
		t.Fatal(err)
	}
	stop := setuptest.Inhabit(t, c)
	c.Close()
	if f := (call{verb: "STATUS", conf: conf}).run(t).failed(t); f.Code != 100 {
		t.Errorf("STATUS: got %+v, want code 100", f)
	}
	stop()
	call{verb: "STATUS", conf: conf}.run(t).ok(t) // STATUS succeeds, so that the runtime calls GC
	if f := on("ADD", 2, conf).run(t).failed(t); f.Code != 100 {
		t.Errorf("got %+v, want code 100: a pod without a process may start again", f)
	}
	setuptest.Same(t, before, "it left traces")
	setuptest.Run(t, "sh", "-c", "umount "+dying.netns+" && rm "+dying.netns)
	harness.Await(t, "an end of the namespace's veth pair", func() bool {
		return setuptest.Run(t, "ip", "-o", "link", "show", "type", "veth") == ""
	})
	call{verb: "STATUS", conf: conf}.run(t).ok(t)
	on("ADD", 2, conf).run(t).ok(t)
	on("DEL", 2, conf).run(t).ok(t)
	dying.verb = "DEL"
	dying.run(t).ok(t)
}

// TestDelWithoutNamespace checks DEL with each kind of missing namespace, and with the namespace
// of another container.
func TestDelWithoutNamespace(t *testing.T) {
	t.Parallel()
	for _, netns := range []string{"", "/run/netns/none", "/run/file", "/run/netns/c2"} {
		t.Run(fmt.Sprintf("%q", netns), func(t *testing.T) {
			t.Parallel()
			newNode(t, single, "nft").containers(2)
			on("ADD", 2, single).run(t).ok(t)
			if err := os.WriteFile("/run/file", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			before := setuptest.Dump(t)
			on("ADD", 1, single).run(t).ok(t)
			c := on("DEL", 1, single)
			c.netns = netns
			c.run(t).ok(t)
			setuptest.Same(t, before, "DEL left traces")
			if held := leases(t); fmt.Sprint(held) != "[c2 10.88.0.2/24]" {
				t.Errorf("leases %v, want that of c2", held)
			}
		})
	}
}

// TestLongestNames checks an attachment with the longest possible names of its network, bridge,
// container, interface and network namespace. CHECK, GC and DEL must find the attachment again.
func TestLongestNames(t *testing.T) {
	t.Parallel()
	conf := everything.with(object{"name": strings.Repeat("n", 200), "bridge": "abcdefghijklmno"})
	newNode(t, conf, "nft").containers(1)
	before := setuptest.Dump(t)
	netns := "/run" + strings.Repeat("/"+strings.Repeat("d", 255), 15) + "/" + strings.Repeat("d", 4095-len("/run/")-15*256)
	if err := os.MkdirAll(filepath.Dir(netns), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(netns, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/run/netns/c1", netns, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	attached := call{container: strings.Repeat("c", 4096), netns: netns, ifname: "ifname-of-15-by", conf: conf}
	verb := func(verb string) call {
		c := attached
		c.verb = verb
		return c
	}
	added := verb("ADD").run(t).ok(t)
	check := verb("CHECK")
	check.conf = checking(conf, added)
	check.run(t).ok(t)
	gc := call{verb: "GC", conf: conf.with(object{"cni.dev/valid-attachments": []object{{"containerID": attached.container, "ifname": attached.ifname}}})}
	gc.run(t).ok(t)
	check.run(t).ok(t)
	verb("DEL").run(t).ok(t)
	setuptest.Same(t, before, "DEL left traces")
	noLeases(t)
	verb("ADD").run(t).ok(t)
	gc.conf = conf.with(object{"cni.dev/valid-attachments": []object{}})
	gc.run(t).ok(t)
	setuptest.Same(t, before, "GC left traces")
	noLeases(t)
}

// TestKilled kills an ADD before a system call of one kind: before the first call in the first
// round, before the fourth call in the second round, and so on. It checks that a repeated ADD
// succeeds in spite of the remains of the killed ADD, and that DEL removes everything.
func TestKilled(t *testing.T) {
	t.Parallel()
	c1 := newNode(t, everything, "nft").containers(2)[0]
	on("ADD", 2, publishing(everything, object{"hostPort": 7000, "containerPort": 80})).run(t).ok(t)
	before := setuptest.Dump(t)
	const step = 3
	killed := 0
	for syscall, number := range map[string]uint64{
		"write": unix.SYS_WRITE, "sendto": unix.SYS_SENDTO, "sendmsg": unix.SYS_SENDMSG, "setns": unix.SYS_SETNS,
		"pwrite64": unix.SYS_PWRITE64, "flock": unix.SYS_FLOCK, "openat": unix.SYS_OPENAT,
	} {
		for at := 1; ; at += step {
			made := 0
			if a := on("ADD", 1, everything).traced(t, func(c ptrace.Call) bool {
				if c.Number == number {
					made++
				}
				return made < at
			}); a.err == nil {
				on("DEL", 1, everything).run(t).ok(t)
				break // ADD makes fewer of these system calls
			}
			killed++
			if again := on("ADD", 1, everything).run(t); again.err != nil {
				// The repeated ADD fails if the killed ADD had finished except for printing the
				// result. The container must then reach its gateway. The first pings may fail,
				// because the port may not have its carrier yet.
				answered := false
				for range 3 {
					answered = answered || setuptest.Ping(t, c1, "10.88.0.1")
				}
				if f := again.failed(t); f.Code != 101 || !answered {
					t.Errorf("killed at %s number %d: a repeated ADD fails: %+v", syscall, at, f)
				}
			}
			on("DEL", 1, everything).run(t).ok(t)
			if !setuptest.Same(t, before, "killed at %s number %d, DEL left traces", syscall, at) {
				t.FailNow()
			}
			if held := leases(t); len(held) != 2 {
				t.Fatalf("killed at %s number %d: leases %v, want those of c2", syscall, at, held)
			}
		}
	}
	if killed < 10 {
		t.Errorf("killed only %d times", killed)
	}
	t.Logf("killed %d times", killed)
}

// TestVersions checks that ADD's result in each CNI version is equal to the file for this version
// in testdata/.
func TestVersions(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			conf := dual.with(object{"cniVersion": version, "dns": object{"nameservers": []string{"192.0.2.53"}}})
			n := newNode(t, conf, "nft")
			n.containers(1)
			a := on("ADD", 1, conf).run(t).ok(t)
			mac := strings.Fields(setuptest.Run(t, "ip", "-br", "link", "show", "br0"))[2]
			got := strings.ReplaceAll(string(a.stdout), mac, "BRIDGE-MAC")
			golden(t, filepath.Join("testdata", version+".golden"), got)
			if v := (call{verb: "VERSION", conf: conf}).run(t).ok(t); !strings.Contains(string(v.stdout), `{"cniVersion":"`+version+`","supportedVersions"`) {
				t.Errorf("VERSION: %s", v.stdout)
			}
			on("DEL", 1, conf).run(t).ok(t)
		})
	}
}
