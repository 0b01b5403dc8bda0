package cnitool

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// bridgeMAC is the link-layer address that br0 has.
func bridgeMAC(t testing.TB) string {
	t.Helper()
	return strings.TrimSpace(setuptest.Run(t, "sh", "-c", "ip -o link show br0 | sed 's/.*link.ether \\([^ ]*\\).*/\\1/'"))
}

// TestBridgeMAC adds and deletes containers on bridges that an administrator made: with a network
// card of an address as virtual machines have them, with one of a real card, without any, and
// one that has lost its only port. Its MAC address stays, the result of ADD tells it, and nobody
// on the bridge loses a packet.
func TestBridgeMAC(t *testing.T) {
	for _, tt := range []struct{ name, card string }{
		{"QEMU's", "52:54:00:12:34:56"}, {"Xen's", "00:16:3e:12:34:56"}, {"none", ""}, {"emptied", ""},
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
			if tt.name == "emptied" {
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
					t.Errorf("ADD tells MAC %+v of the bridge, want %s", result.Interfaces, want)
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
