package cnitool

import (
	"os"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// everyEthernet is a .network file of systemd-networkd that matches all links. Administrators write
// such files for the network cards of a host.
const everyEthernet = `[Match]
Type=ether
[Network]
Address=192.0.2.9/24
LinkLocalAddressing=no
`

// TestNetworkd checks bridgeveth beside systemd-networkd. If a .network file matches bridgeveth's
// links, networkd removes the ports from the bridge. With the file in dist/, networkd leaves running
// and new containers alone.
func TestNetworkd(t *testing.T) {
	t.Parallel()
	n := newNode(t, single.with(object{"bridge": "cni0"}), "nft")
	const program = "/usr/lib/systemd/systemd-networkd"
	if _, err := os.Stat(program); err != nil {
		t.Skip("LISTED SKIP: no systemd-networkd")
	}
	// networkd waits for udev before it configures a link, unless /sys is read-only.
	setuptest.Run(t, "sh", "-ec", "mount -o remount,ro /sys; mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases; chown -R systemd-network /run/systemd/netif")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile("/run/systemd/network/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// configured makes a link, and waits until networkd has configured the link. networkd has then
	// seen all older links.
	configured := func(link string) {
		t.Helper()
		setuptest.Run(t, "ip", "link", "add", link, "type", "veth", "peer", "name", link+"-peer")
		harness.Await(t, "an address of "+link, func() bool {
			return strings.Contains(setuptest.Run(t, "ip", "-o", "addr", "show", link), "192.0.2.9")
		})
	}
	ports := func() int { return strings.Count(setuptest.Run(t, "ip", "-o", "link"), "master cni0") }
	c := n.containers(3)
	n.must("add", c[0], c[1])

	write("20-ether.network", everyEthernet)
	stop := harness.Daemon(t, program)
	configured("first")
	harness.Await(t, "networkd to remove both ports", func() bool { return ports() == 0 })
	if n.cnitool("check", c[0]) == nil {
		t.Error("CHECK does not notice the removed port")
	}

	stop()
	shipped, err := os.ReadFile("../../dist/systemd-networkd/10-bridgeveth.network")
	if err != nil {
		t.Fatal(err)
	}
	write("10-bridgeveth.network", string(shipped))
	harness.Daemon(t, program)
	configured("second")
	if out, status := bvctl(t, "repair"); status != 0 {
		t.Fatal(out)
	}
	n.must("add", c[2])
	configured("third")
	if got := ports(); got != 3 {
		t.Errorf("%d ports are on the bridge, want 3", got)
	}
	for _, c := range c {
		n.must("check", c)
		if !setuptest.Ping(t, c, "10.88.0.1") {
			t.Error("the gateway does not answer")
		}
	}
	n.must("del", c...)
}
