package cnitool

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// TestNetworkManager checks bridgeveth beside NetworkManager. "nmcli networking off", and each
// suspend of the host, removes the gateway address from the bridge. With the file in dist/,
// NetworkManager leaves running and new containers alone.
func TestNetworkManager(t *testing.T) {
	t.Parallel()
	n := newNode(t, single.with(object{"bridge": "cni0"}), "nft")
	if _, err := exec.LookPath("NetworkManager"); err != nil {
		t.Skip("LISTED SKIP: no NetworkManager")
	}
	// NetworkManager waits for udev before it knows a link, unless /sys is read-only.
	setuptest.Run(t, "sh", "-ec", "mount -o remount,ro /sys; mount -t tmpfs none /etc/NetworkManager; mkdir -p /etc/NetworkManager/conf.d /var/lib/NetworkManager")
	harness.StartBus(t)
	harness.Daemon(t, "NetworkManager", "--no-daemon")
	harness.Await(t, "NetworkManager", func() bool { return exec.Command("nmcli", "-t", "general").Run() == nil })
	state := func(link string) string {
		return setuptest.Run(t, "nmcli", "-g", "GENERAL.STATE", "device", "show", link)
	}
	gateway := func() bool {
		return strings.Contains(setuptest.Run(t, "ip", "-o", "addr", "show", "cni0"), "10.88.0.1/24")
	}
	c := n.containers(2)

	n.must("add", c[0])
	harness.Await(t, "NetworkManager to take over the bridge", func() bool { return strings.Contains(state("cni0"), "connected") })
	if !gateway() {
		t.Fatal("the bridge has no gateway address")
	}
	setuptest.Run(t, "nmcli", "networking", "off")
	harness.Await(t, "NetworkManager to remove the gateway address", func() bool { return !gateway() })
	setuptest.Run(t, "nmcli", "networking", "on")
	if n.cnitool("check", c[0]) == nil {
		t.Error("CHECK does not notice the removed gateway address")
	}

	shipped, err := os.ReadFile("../../dist/NetworkManager/10-bridgeveth.conf")
	if err == nil {
		err = os.WriteFile("/etc/NetworkManager/conf.d/10-bridgeveth.conf", shipped, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	setuptest.Run(t, "nmcli", "general", "reload", "conf")
	if out, status := bvctl(t, "repair"); status != 0 {
		t.Fatal(out)
	}
	n.must("add", c[1])
	setuptest.Run(t, "nmcli", "networking", "off")
	setuptest.Run(t, "nmcli", "networking", "on")
	if got := state("cni0"); !strings.Contains(got, "unmanaged") {
		t.Errorf("NetworkManager's state of the bridge is %q, want unmanaged", got)
	}
	for _, c := range c {
		n.must("check", c)
		if !setuptest.Ping(t, c, "10.88.0.1") {
			t.Error("the gateway does not answer")
		}
	}
	n.must("del", c...)
}
