package setup_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// attach calls CheckAttachable and AttachPort. The test fails if one of them returns an error.
func attach(t testing.TB, host *setup.Host, p *setup.Port) *setup.Port {
	t.Helper()
	if err := host.CheckAttachable(p); err != nil {
		t.Fatal(err)
	}
	if _, err := host.AttachPort(p); err != nil {
		t.Fatal(err)
	}
	return p
}

// withOwnHost calls f with a second Host for the same namespace. Each goroutine of a test needs its
// own Host, because only one goroutine at a time may use a Namespace.
func withOwnHost(host *setup.Host, f func(own *setup.Host) error) error {
	return host.Do(func() error {
		own, err := setup.CurrentHost()
		if err != nil {
			return err
		}
		defer own.Close()
		return f(own)
	})
}

// TestAttachFails checks that AttachPort restores the former state of the host if it fails. The
// cases fail at different steps.
func TestAttachFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		spoil func(testing.TB, *setup.Host, *setup.Port)
		want  string
	}{
		{"unreachable gateway", func(_ testing.TB, _ *setup.Host, p *setup.Port) {
			p.Routes[0].Gateway = netip.MustParseAddr("192.0.2.1")
		}, "add route 0.0.0.0/0 via 192.0.2.1: network is unreachable"},
		{"another address on the bridge", func(t testing.TB, _ *setup.Host, _ *setup.Port) {
			setuptest.Run(t, "ip", "link", "add", "br0", "type", "bridge")
			setuptest.Run(t, "ip", "addr", "add", "10.99.0.1/24", "dev", "br0")
		}, "the bridge has another address, 10.99.0.1/24"},
		{"a link of another type", func(t testing.TB, _ *setup.Host, _ *setup.Port) {
			setuptest.Run(t, "ip", "link", "add", "br0", "type", "veth", "peer", "name", "other")
		}, "br0 is of type \"veth\": the link is not a bridge"},
		{"interface name taken", func(t testing.TB, _ *setup.Host, p *setup.Port) {
			setuptest.In(t, p.Container, "ip", "link", "add", "eth0", "type", "bridge")
		}, "create eth0"},
		{"IPv6 without its sysctls", func(t testing.TB, _ *setup.Host, _ *setup.Port) {
			setuptest.Run(t, "mount", "-t", "tmpfs", "tmpfs", "/proc/sys/net/ipv6")
		}, "net/ipv6/conf/all/forwarding"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := setuptest.EnterHost(t)
			dropAll(t, "nft")
			p := port(t, 1, setup.ForwardIPTables)
			tt.spoil(t, host, p)
			before := setuptest.Dump(t)
			err := host.CheckAttachable(p)
			if err == nil {
				_, err = host.AttachPort(p)
			}
			if err == nil {
				t.Fatal("AttachPort succeeded")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want %q in it", err, tt.want)
			}
			setuptest.Same(t, before, "failed AttachPort left traces")
		})
	}
}

// TestAttachedAlready checks that a second AttachPort for the same port fails and changes nothing.
// A port that is down is unfinished, so the second call must replace it.
func TestAttachedAlready(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	p := attach(t, host, port(t, 1, setup.ForwardNone))
	before := setuptest.Dump(t)
	if err := host.CheckAttachable(p); !errors.Is(err, setup.ErrAttached) {
		t.Errorf("got %v, want ErrAttached", err)
	}
	if _, err := host.AttachPort(p); err == nil {
		t.Error("a second AttachPort succeeded")
	}
	setuptest.Same(t, before, "the first attachment has changed")
	setuptest.Run(t, "ip", "link", "set", p.Port(), "down") // as a killed ADD leaves the port
	attach(t, host, p)
	if err := host.VerifyPort(p); err != nil {
		t.Error(err)
	}
}

// TestForeignBridge checks that a bridge of another program is unchanged after a port was attached
// to it and detached.
func TestForeignBridge(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	dropAll(t, "nft")
	setuptest.Run(t, "ip", "link", "add", "br0", "type", "bridge")
	setuptest.Run(t, "ip", "link", "set", "br0", "addrgenmode", "none", "up")
	setuptest.Run(t, "ip", "link", "add", "uplink", "master", "br0", "type", "veth", "peer", "name", "switch")
	before := setuptest.Dump(t)
	p := attach(t, host, port(t, 1, setup.ForwardIPTables))
	if !setuptest.Ping(t, p.Container, "10.88.0.1") {
		t.Error("no answer from the gateway")
	}
	if err := host.DetachPort(p.Attachment, "br0"); err != nil {
		t.Fatal(err)
	}
	setuptest.Same(t, before, "the bridge has changed")
}

// TestBridgeRace creates a bridge at the same time as EnsureBridge. If EnsureBridge is second, it
// must not mark the bridge as ours. Otherwise the last DetachPort would delete the bridge of another
// program.
func TestBridgeRace(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	library, err := netlink.NewHandle()
	if err != nil {
		t.Fatal(err)
	}
	defer library.Close()
	first := 0
	for range 50 {
		theirs := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		var both sync.WaitGroup
		var made error
		both.Go(func() { made = library.LinkAdd(theirs) })
		if err := host.EnsureBridge("br0", 0); err != nil {
			t.Fatal(err)
		}
		both.Wait()
		if made == nil {
			first++
			if shown := setuptest.Run(t, "ip", "link", "show", "br0"); strings.Contains(shown, "alias") {
				t.Fatalf("the foreign bridge is marked as ours: %s", shown)
			}
		}
		if err := library.LinkDel(theirs); err != nil {
			t.Fatal(err)
		}
	}
	if first == 0 {
		t.Error("the foreign bridge was never created first")
	}
}

// TestReplaceAddress checks that AttachPort with ConflictReplace deletes the conflicting address of
// the bridge.
func TestReplaceAddress(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	setuptest.Run(t, "ip", "link", "add", "br0", "type", "bridge")
	setuptest.Run(t, "ip", "addr", "add", "10.99.0.1/24", "dev", "br0")
	p := port(t, 1, setup.ForwardNone)
	p.Network.Conflict = setup.ConflictReplace
	attach(t, host, p)
	addresses := setuptest.Run(t, "ip", "-o", "-4", "addr", "show", "br0")
	if strings.Contains(addresses, "10.99.0.1") || !strings.Contains(addresses, "10.88.0.1/24") {
		t.Errorf("got %s", addresses)
	}
}

// TestParallel checks that each rule exists once after many ports were attached at the same time,
// and that the last of many parallel DetachPort calls deletes everything.
func TestParallel(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	dropAll(t, "nft")
	before := setuptest.Dump(t)
	const containers = 20
	ports := make([]*setup.Port, containers)
	for i := range ports {
		ports[i] = port(t, i+1, setup.ForwardIPTables)
	}
	each := func(what string, f func(*setup.Host, *setup.Port) error) {
		var group sync.WaitGroup
		for _, p := range ports {
			group.Go(func() {
				if err := withOwnHost(host, func(own *setup.Host) error { return f(own, p) }); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		group.Wait()
	}
	each("attach", func(own *setup.Host, p *setup.Port) error { _, err := own.AttachPort(p); return err })
	if got := rules(t, "iptables", "BRIDGEVETH-FORWARD"); len(got) != 3 {
		t.Errorf("our chain holds %q, want the administrator's and 2 rules", got)
	}
	if got := rules(t, "iptables", "FORWARD"); len(got) != 1 {
		t.Errorf("FORWARD holds %q, want 1 jump", got)
	}
	if got := strings.Count(setuptest.Run(t, "nft", "list", "ruleset"), "masquerade comment"); got != 2 {
		t.Errorf("%d masquerade rules, want one for each family", got)
	}
	if !setuptest.Ping(t, ports[0].Container, "10.88.0.21") {
		t.Error("no answer from the last container")
	}
	each("detach", func(own *setup.Host, p *setup.Port) error { return own.DetachPort(p.Attachment, "br0") })
	setuptest.Same(t, before, "DetachPort left traces")
}

// TestCollect checks that Collect deletes the port of an attachment that is not valid any more, and
// the unfinished port of a killed ADD. Collect must keep the port of a valid attachment and the port
// of another CNI network.
func TestCollect(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	keep := attach(t, host, port(t, 1, setup.ForwardNone))
	stale := attach(t, host, port(t, 2, setup.ForwardNone))
	other := port(t, 3, setup.ForwardNone)
	other.Network, other.Attachment.Network = keep.Network, "another"
	attach(t, host, other)
	unfinished := port(t, 4, setup.ForwardNone)
	setuptest.Run(t, "ip", "link", "add", unfinished.Port(), "master", "br0", "type", "veth", "peer", "name", "lost")
	if err := host.Collect("net", "br0", []setup.Attachment{keep.Attachment}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		p    *setup.Port
		left bool
	}{{keep, true}, {stale, false}, {other, true}, {unfinished, false}} {
		if got, err := host.HasPort(want.p.Attachment); err != nil || got != want.left {
			t.Errorf("port of %s: %v, want %v", want.p.Attachment, got, want.left)
		}
	}
}

// TestVerify checks that the error of VerifyPort names the object that was changed or deleted after
// AttachPort.
func TestVerify(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, command, want string }{
		{"port down", "ip link set PORT down", "port PORT up: is false"},
		{"port off the bridge", "ip link set PORT nomaster", "port PORT on bridge br0: is false"},
		{"port gone", "ip link del PORT", "port PORT: missing"},
		{"hairpin", "ip link set PORT type bridge_slave hairpin on", "hairpin mode of port PORT: is true"},
		{"MTU of the port", "ip link set PORT mtu 1400", "MTU of eth0: is 1500 instead of 1400"},
		{"bridge down", "ip link set br0 down", "state up of bridge br0: missing"},
		{"gateway address", "ip addr del 10.88.0.1/24 dev br0", "address 10.88.0.1/24 of bridge br0: missing"},
		{"forwarding", "echo 0 >/proc/sys/net/ipv4/ip_forward", "sysctl net/ipv4/ip_forward=1: missing"},
		{"rules", "iptables -F FORWARD", "rules of bridge br0 in iptables-nft filter FORWARD: missing"},
		{"masquerade", "nft delete table ip6 bridgeveth", "masquerade of fd88::/64 behind br0: missing"},
		{"interface down", "ip -n c1 link set eth0 down", "interface eth0 up: is false"},
		{"address", "ip -n c1 addr del 10.88.0.2/24 dev eth0", "address 10.88.0.2/24 on eth0: is false"},
		{"IPv6 address", "ip -n c1 addr del fd88::2/64 dev eth0", "address fd88::2/64 on eth0: is false"},
		{"route", "ip -n c1 route del default", "route 0.0.0.0/0 via 10.88.0.1: is false"},
		{"MAC", "ip -n c1 link set eth0 address 02:00:00:00:00:01", "MAC of eth0: is 02:00:00:00:00:01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := setuptest.EnterHost(t)
			dropAll(t, "nft")
			p := attach(t, host, port(t, 1, setup.ForwardIPTables))
			if err := host.VerifyPort(p); err != nil {
				t.Fatalf("before: %v", err)
			}
			name := strings.NewReplacer("PORT", p.Port())
			setuptest.Run(t, "sh", "-c", name.Replace(tt.command))
			err := host.VerifyPort(p)
			if err == nil || !strings.Contains(err.Error(), name.Replace(tt.want)) {
				t.Errorf("got %v, want %q in it", err, name.Replace(tt.want))
			}
		})
	}
}

// TestPortSettings checks that AttachPort gives both ends of a port the planned settings, such as
// hairpin mode and MTU.
func TestPortSettings(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	p := port(t, 1, setup.ForwardNone)
	p.Hairpin, p.MTU = true, 1400
	attach(t, host, p)
	if err := host.VerifyPort(p); err != nil {
		t.Error(err)
	}
	for _, look := range []struct{ got, want string }{
		{setuptest.Run(t, "ip", "-d", "link", "show", p.Port()), "hairpin on"},
		{setuptest.Run(t, "ip", "-d", "link", "show", p.Port()), "mtu 1400"},
		{setuptest.Run(t, "ip", "-d", "link", "show", p.Port()), "alias " + p.String()},
		{setuptest.Run(t, "ip", "-d", "link", "show", p.Port()), "addrgenmode none"},
		{setuptest.In(t, p.Container, "ip", "-d", "link", "show", "eth0"), "mtu 1400"},
		{setuptest.In(t, p.Container, "cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra"), "0"},
		{setuptest.In(t, p.Container, "ip", "addr", "show", "lo"), "127.0.0.1"},
	} {
		if !strings.Contains(look.got, look.want) {
			t.Errorf("%q is not in %s", look.want, look.got)
		}
	}
}

// TestRouterAdvertisements checks that AttachPort changes accept_ra of the uplink from 1 to 2 when
// it switches IPv6 forwarding on. With forwarding on, a link whose accept_ra is 1 ignores router
// advertisements.
func TestRouterAdvertisements(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	setuptest.Run(t, "ip", "link", "add", "uplink", "type", "veth", "peer", "name", "other")
	setuptest.SetSysctl(t, "ipv6/conf/uplink/accept_ra", "1")
	setuptest.SetSysctl(t, "ipv6/conf/other/accept_ra", "0")
	attach(t, host, port(t, 1, setup.ForwardNone))
	for link, want := range map[string]string{"uplink": "2", "other": "0", "br0": "0", "default": "1"} {
		if got := setuptest.Sysctl(t, "ipv6/conf/"+link+"/accept_ra"); got != want {
			t.Errorf("accept_ra of %s is %s, want %s", link, got, want)
		}
	}
	if got := setuptest.Sysctl(t, "ipv6/conf/all/forwarding"); got != "1" {
		t.Errorf("forwarding is %s", got)
	}
}

// TestForwardingByDefault sets the sysctl conf/all/forwarding to 1 and conf/default/forwarding to 0.
// AttachPort must set conf/br0/forwarding to 1. If another program sets conf/br0/forwarding to 0
// later, VerifyPort must name this sysctl, and the next AttachPort must set it to 1 again.
func TestForwardingByDefault(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	joinOutside(t, host)
	for _, family := range []string{"ipv4", "ipv6"} {
		setuptest.SetSysctl(t, family+"/conf/all/forwarding", "1")
		setuptest.SetSysctl(t, family+"/conf/default/forwarding", "0")
	}
	first := attach(t, host, port(t, 1, setup.ForwardNone))
	for _, family := range []string{"ipv4", "ipv6"} {
		key := family + "/conf/br0/forwarding"
		if got := setuptest.Sysctl(t, key); got != "1" {
			t.Errorf("%s is %s", key, got)
		}
		setuptest.SetSysctl(t, key, "0")
		if err := host.VerifyPort(first); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("got %v, which does not name %s", err, key)
		}
	}
	second := attach(t, host, port(t, 2, setup.ForwardNone))
	if !setuptest.Ping(t, second.Container, "192.0.2.2") {
		t.Error("no answer from outside")
	}
}

// TestIPv6OffByDefault checks that a dual-stack port works on a host where new links have no IPv6
// by default.
func TestIPv6OffByDefault(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	setuptest.SetSysctl(t, "ipv6/conf/default/disable_ipv6", "1")
	p := attach(t, host, port(t, 1, setup.ForwardNone))
	if !setuptest.Ping(t, p.Container, "fd88::1") {
		t.Error("no answer from the gateway")
	}
}

// TestBridgeFull checks that AttachPort returns an error with the remedy if the bridge has 1023
// ports.
func TestBridgeFull(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	if err := host.EnsureBridge("br0", 0); err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for i := range 1023 {
		fmt.Fprintf(&lines, "link add p%d master br0 type veth peer name q%d\n", i, i)
	}
	if err := os.WriteFile("/run/batch", []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	setuptest.Run(t, "ip", "-batch", "/run/batch")
	_, err := host.AttachPort(port(t, 1, setup.ForwardNone))
	if !errors.Is(err, setup.ErrBridgeFull) {
		t.Errorf("got %v, want ErrBridgeFull", err)
	}
	for _, remedy := range []string{`"name"`, `"bridge"`, `"masqExclude"`} {
		if err != nil && !strings.Contains(err.Error(), remedy) {
			t.Errorf("%v does not name the remedy %s", err, remedy)
		}
	}
	network := &setup.Network{Bridge: "br0"}
	if err := host.CheckNetwork(network); !errors.Is(err, setup.ErrBridgeFull) {
		t.Errorf("CheckNetwork: got %v, want ErrBridgeFull", err)
	}
	setuptest.Run(t, "ip", "link", "delete", "p7")
	if err := host.CheckNetwork(network); err != nil {
		t.Errorf("CheckNetwork after the deletion of one port: %v", err)
	}
}

// TestBridgeWithPortOfOthers adds the port of a virtual machine to a bridge that AttachPort has created. As long as
// the port is there, the network must stay after the last port of ours was deleted: the gateway, masquerade and
// FORWARD. Without the port, the next Collect, as by GC, deletes the network.
func TestBridgeWithPortOfOthers(t *testing.T) {
	t.Parallel()
	for by, release := range map[string]func(host *setup.Host) error{
		"Collect": func(host *setup.Host) error { return host.Collect("net", "br0", nil) },
		"DetachPort": func(host *setup.Host) error {
			return host.DetachPort(setup.Attachment{Network: "net", Container: "gone", Interface: "eth0"}, "br0")
		},
	} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			host := setuptest.EnterHost(t)
			dropAll(t, "nft")
			vm := setuptest.Container(t, "vm")
			setuptest.Container(t, "outside")
			setuptest.Run(t, "sh", "-ec", `ip link add uplink type veth peer name eth0 netns outside; ip addr add 192.0.2.1/24 dev uplink; ip link set uplink up
				ip -n outside addr add 192.0.2.2/24 dev eth0; ip -n outside link set eth0 up`) // outside has no route to the containers
			before := setuptest.Dump(t)
			p := attach(t, host, port(t, 1, setup.ForwardIPTables))
			setuptest.Run(t, "sh", "-ec", `ip link add tap0 master br0 up type veth peer name eth0 netns vm
				ip -n vm addr add 10.88.0.200/24 dev eth0; ip -n vm link set eth0 up; ip -n vm route add default via 10.88.0.1`)
			works := func(when string) {
				t.Helper()
				for _, to := range []string{"10.88.0.1", "192.0.2.2"} {
					if !setuptest.Ping(t, vm, to) {
						t.Errorf("%s: no answer from %s", when, to)
					}
				}
			}
			works("beside a container")
			for range 2 {
				if err := host.DetachPort(p.Attachment, "br0"); err != nil {
					t.Fatal(err)
				}
				works("after the last DEL")
				if err := host.Collect("net", "br0", nil); err != nil {
					t.Fatal(err)
				}
				works("after GC")
				attach(t, host, p)
			}
			if err := host.DetachPort(p.Attachment, "br0"); err != nil {
				t.Fatal(err)
			}
			setuptest.Run(t, "ip", "link", "del", "tap0")
			if err := release(host); err != nil {
				t.Fatal(err)
			}
			setuptest.Same(t, before, "something is left")
		})
	}
}

// TestOtherRangeBesidePortOfOthers checks that AttachPort does not take away the gateway of a virtual machine on a
// bridge that AttachPort has created: a network with another range fails, and changes nothing.
func TestOtherRangeBesidePortOfOthers(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	vm := setuptest.Container(t, "vm")
	p := attach(t, host, port(t, 1, setup.ForwardIPTables))
	setuptest.Run(t, "sh", "-ec", `ip link add tap0 master br0 up type veth peer name eth0 netns vm
		ip -n vm addr add 10.88.0.200/24 dev eth0; ip -n vm link set eth0 up`)
	if err := host.DetachPort(p.Attachment, "br0"); err != nil {
		t.Fatal(err)
	}
	other := port(t, 2, setup.ForwardIPTables)
	other.Network.Gateways = []netip.Prefix{netip.MustParsePrefix("10.99.0.1/24")}
	other.Network.Masquerade = []netip.Prefix{netip.MustParsePrefix("10.99.0.0/24")}
	other.Addresses, other.Routes = []netip.Prefix{netip.MustParsePrefix("10.99.0.3/24")}, nil
	before := setuptest.Dump(t)
	if err := host.CheckNetwork(other.Network); !errors.Is(err, setup.ErrAddressConflict) {
		t.Errorf("CheckNetwork: got %v, want ErrAddressConflict", err)
	}
	if _, err := host.AttachPort(other); !errors.Is(err, setup.ErrAddressConflict) {
		t.Errorf("AttachPort: got %v, want ErrAddressConflict", err)
	}
	setuptest.Same(t, before, "AttachPort has failed and has changed something")
	if !setuptest.Ping(t, vm, "10.88.0.1") {
		t.Error("the virtual machine does not reach its gateway")
	}
	other.Network.Conflict = setup.ConflictAdd
	attach(t, host, other)
	second := *other
	second.Attachment.Container, second.Container = "c3", setuptest.Container(t, "c3")
	second.Addresses = []netip.Prefix{netip.MustParsePrefix("10.99.0.4/24")}
	attach(t, host, &second)
	if err := host.DetachPort(second.Attachment, "br0"); err != nil {
		t.Fatal(err)
	}
	if !setuptest.Ping(t, vm, "10.88.0.1") {
		t.Error("with ConflictAdd, the virtual machine does not reach its gateway after a DEL")
	}
	setuptest.Run(t, "ip", "link", "del", "tap0")
	if err := host.DetachPort(other.Attachment, "br0"); err != nil {
		t.Fatal(err)
	}
	setuptest.Run(t, "sh", "-c", "! ip link show br0 2>/dev/null")
}
