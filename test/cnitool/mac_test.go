package cnitool

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// bridgeMAC returns the MAC address of br0.
func bridgeMAC(t testing.TB) string {
	t.Helper()
	return strings.TrimSpace(setuptest.Run(t, "sh", "-c", "ip -o link show br0 | sed 's/.*link.ether \\([^ ]*\\).*/\\1/'"))
}

// TestBridgeMAC adds and deletes containers on an administrator's bridge. The cases are: the bridge
// has a port with the MAC address of a QEMU machine or of a Xen machine, it has never had a port,
// or its only port was deleted. The test checks that the bridge keeps its MAC address, that ADD's
// result has this address, and that no packet on the bridge is lost.
func TestBridgeMAC(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, card string }{
		{"card of QEMU", "52:54:00:12:34:56"}, {"card of Xen", "00:16:3e:12:34:56"}, {"no port", ""}, {"only port deleted", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conf := single.with(object{"hairpinMode": true})
			n := newNode(t, conf, "nft")
			c := n.containers(3)
			watcher := c[2]
			setuptest.Run(t, "sh", "-ec", "ip link add br0 type bridge; ip addr add 10.88.0.1/24 dev br0; ip link set br0 up")
			if tt.card != "" {
				watcher = setuptest.Container(t, "lan")
				setuptest.Run(t, "sh", "-ec", "ip link add card type veth peer name eth0 netns lan; ip link set card address "+tt.card+
					" master br0 up; ip -n lan addr add 10.88.0.200/24 dev eth0; ip -n lan link set eth0 up")
			}
			want := bridgeMAC(t)
			if tt.name == "only port deleted" {
				setuptest.Run(t, "sh", "-ec", "ip link add p type veth peer name q; ip link set p master br0; ip link del p")
				want = ""
			}
			step := func(verb string, i int) {
				t.Helper()
				a := on(verb, i, conf).run(t).ok(t)
				if want == "" {
					want = bridgeMAC(t)
				}
				if got := bridgeMAC(t); got != want || got == "00:00:00:00:00:00" {
					t.Errorf("after %s of container %d the bridge has MAC %s, want %s", verb, i, got, want)
				}
				var result struct{ Interfaces []struct{ Name, MAC string } }
				if verb == "ADD" && (json.Unmarshal(a.stdout, &result) != nil || result.Interfaces[0].MAC != want) {
					t.Errorf("ADD returns the interfaces %+v, want MAC %s of the bridge", result.Interfaces, want)
				}
			}
			step("ADD", 3)
			ping := exec.Command("nsenter", "--net="+watcher.Path, "ping", "-q", "-i", "0.02", "-W", "1", "-c", "100", "10.88.0.1")
			var said strings.Builder
			ping.Stdout = &said
			if err := ping.Start(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				step("ADD", 1)
				step("ADD", 2)
				step("DEL", 1)
				step("DEL", 2)
			}
			if err := ping.Wait(); err != nil || !strings.Contains(said.String(), " 0% packet loss") {
				t.Errorf("pings to the host: %v, %s", err, said.String())
			}
			step("DEL", 3)
			step("ADD", 1)
			step("DEL", 1)
		})
	}
}

// takeOver gives the port of container i a MAC address that is lower than the bridge's. The kernel
// then gives this address to the bridge too. The ports of older builds had such addresses. takeOver
// returns the address.
func takeOver(t testing.TB, i int) string {
	t.Helper()
	setuptest.Run(t, "ip", "link", "set", setup.Attachment{Network: "net", Container: fmt.Sprint("c", i), Interface: "eth0"}.Port(), "address", "02:00:00:00:00:01")
	if got := bridgeMAC(t); got != "02:00:00:00:00:01" {
		t.Fatalf("the bridge has MAC %s, not the lowest of its ports", got)
	}
	return "02:00:00:00:00:01"
}

// TestBridgeMACWithoutPort checks a bridge that has the MAC address of one of its ports. The test
// detaches the container of this port, and checks that the bridge keeps the address.
func TestBridgeMACWithoutPort(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		verb string
		conf object
	}{
		{"DEL", single}, {"GC", single.with(object{"cni.dev/valid-attachments": []object{{"containerID": "c2", "ifname": "eth0"}}})},
	} {
		t.Run(tt.verb, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, single, "nft")
			lan(t)
			setuptest.Run(t, "ip", "addr", "add", "10.88.0.1/24", "dev", "br0")
			c := n.containers(2)
			on("ADD", 1, single).run(t).ok(t)
			on("ADD", 2, single).run(t).ok(t)
			want := takeOver(t, 1)
			if !setuptest.Ping(t, c[1], "10.88.0.1") {
				t.Fatal("no answer from the host")
			}
			on(tt.verb, 1, tt.conf).run(t).ok(t)
			if got := bridgeMAC(t); got != want {
				t.Errorf("the bridge has MAC %s, want %s", got, want)
			}
		})
	}
}

// TestBridgeMACOfExistingLink attaches and detaches a link with a low MAC address, which the kernel
// would give to the bridge too. It checks that the bridge keeps its own MAC address.
func TestBridgeMACOfExistingLink(t *testing.T) {
	t.Parallel()
	conf := behind(single, tap)
	newNode(t, conf, "nft").containers(1)
	lan(t)
	setuptest.Run(t, "ip", "link", "add", "tap0", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "machine")
	want := bridgeMAC(t)
	if result := on("ADD", 1, conf).run(t).ok(t); bridgeMAC(t) != want || !strings.Contains(string(result.stdout), `"br0","mac":"`+want) {
		t.Errorf("the bridge has MAC %s, want %s; result: %s", bridgeMAC(t), want, result.stdout)
	}
	on("DEL", 1, conf).run(t).ok(t)
	if got := bridgeMAC(t); got != want {
		t.Errorf("after DEL the bridge has MAC %s, want %s", got, want)
	}
}

// TestBridgeMACAfterKilled kills the ADD of a link with a low MAC address: before its first message
// in the first round, before its second message in the second round, and so on. It checks that the
// bridge keeps its MAC address.
func TestBridgeMACAfterKilled(t *testing.T) {
	t.Parallel()
	const want = "52:54:00:12:34:56"
	conf := behind(single.with(object{"forward": "none"}), tap)
	newNode(t, conf, "nft").containers(1)
	setuptest.Run(t, "ip", "link", "add", "tap0", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "machine")
	setuptest.Run(t, "ip", "link", "add", "card", "address", want, "type", "veth", "peer", "name", "lan")
	for at, killed := 1, true; killed; at++ {
		setuptest.Run(t, "sh", "-ec", "ip link add br0 up type bridge; ip link set card master br0")
		killed = on("ADD", 1, conf).killedAt(t, at)
		if got := bridgeMAC(t); got != want {
			t.Errorf("killed at message %d: the bridge has MAC %s, want %s", at, got, want)
		}
		on("DEL", 1, conf).run(t).ok(t)
		setuptest.Run(t, "ip", "link", "del", "br0")
	}
}

// TestBridgeMACMadeAnew deletes a bridge with containers and makes a new bridge of the same name,
// as an administrator may do. It checks that bvctl repair attaches the containers to the new
// bridge, and that the new bridge keeps the MAC address that the kernel gave it.
func TestBridgeMACMadeAnew(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	c := n.containers(2)
	setuptest.Run(t, "sh", "-ec", "ip link add br0 type bridge; ip link set br0 up")
	n.must("add", c...)
	setuptest.Run(t, "sh", "-ec", "ip link del br0; ip link add br0 type bridge; ip link set br0 up")
	want := bridgeMAC(t)
	if out, status := bvctl(t, "repair"); status != 0 {
		t.Fatal(out)
	}
	if !setuptest.Ping(t, c[0], "10.88.0.1") {
		t.Error("no answer from the host")
	}
	if got := bridgeMAC(t); got != want {
		t.Errorf("the bridge has MAC %s, want %s", got, want)
	}
	n.must("del", c...)
	if got := bridgeMAC(t); got != want {
		t.Errorf("after DEL the bridge has MAC %s, want %s", got, want)
	}
}

// TestBridgeMACAtOnce adds containers in parallel to a bridge without a port. It checks that the
// bridge keeps its MAC address, and that the result of each ADD has this address.
func TestBridgeMACAtOnce(t *testing.T) {
	t.Parallel()
	const count = 12
	conf := object{"type": "bridgeveth", "bridge": "br0", "forward": "none"}
	n := newNode(t, conf, "nft")
	n.containers(count)
	for range 5 {
		setuptest.Run(t, "sh", "-ec", "ip link add br0 type bridge; ip link set br0 up")
		want := bridgeMAC(t)
		var all []*exec.Cmd
		var said [count]bytes.Buffer
		for i := range count {
			cmd := on("ADD", i+1, conf).command(t)
			cmd.Stdout = &said[i]
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			all = append(all, cmd)
		}
		for i, cmd := range all {
			if err := cmd.Wait(); err != nil || !strings.Contains(said[i].String(), want) {
				t.Errorf("ADD: %v: %s, want MAC %s", err, said[i].String(), want)
			}
		}
		if got := bridgeMAC(t); got != want {
			t.Errorf("the bridge has MAC %s, want %s", got, want)
		}
		for i := range count {
			on("DEL", i+1, conf).run(t).ok(t)
		}
		setuptest.Run(t, "ip", "link", "del", "br0")
	}
}
