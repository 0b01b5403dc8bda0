package cnitool

import (
	"os"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
	"github.com/bridgeveth/bridgeveth/test/harness"
)

// TestKubernetesAsShipped checks conf/10-kubernetes.conflist on a node with a direct route to
// another node's pods. Pods of other nodes must see a pod's own address, and other destinations
// must see the node's address. The pod's MTU must be that of the uplink.
func TestKubernetesAsShipped(t *testing.T) {
	t.Parallel()
	n := newNode(t, single, "nft")
	other := n.outside(false) // the other node, with a pod at 10.244.2.2
	setuptest.Run(t, "sh", "-ec", `ip link set uplink mtu 1420; ip route add 10.244.2.0/24 via 192.0.2.2; ip route add default via 192.0.2.2
		ip -n outside addr add 10.244.2.2/32 dev lo; ip -n outside route add 10.244.1.0/24 via 192.0.2.1`)
	serve(t, other, 80)
	if err := os.Remove("/run/net.d/10-net.conflist"); err != nil {
		t.Fatal(err)
	}
	harness.Configure(t, "10-kubernetes.conflist", "/run/net.d/10-kubernetes.conflist")
	pod := n.containers(1)[0]
	for _, verb := range []string{"add", "check"} {
		if err := n.cnitoolOn("kubernetes", verb, pod); err != nil {
			t.Fatal(err)
		}
	}
	serve(t, pod, 80)
	if got := ask(t, pod, "tcp", "10.244.2.2", 80); got != "10.244.1.2" {
		t.Errorf("another node's pod sees %q, want 10.244.1.2", got)
	}
	if got := ask(t, pod, "tcp", "192.0.2.2", 80); got != "192.0.2.1" {
		t.Errorf("the world sees %q, want the node's 192.0.2.1", got)
	}
	setuptest.Run(t, "ip", "-n", "outside", "route", "replace", "10.244.1.0/24", "via", "192.0.2.1", "src", "10.244.2.2")
	if got := ask(t, other, "tcp", "10.244.1.2", 80); got != "10.244.2.2" {
		t.Errorf("the pod sees %q, want another node's pod 10.244.2.2", got)
	}
	if link := setuptest.In(t, pod, "ip", "-o", "link", "show", "eth0"); !strings.Contains(link, "mtu 1420 ") {
		t.Errorf("the pod's link does not have the MTU of the uplink: %s", link)
	}
	if err := n.cnitoolOn("kubernetes", "del", pod); err != nil {
		t.Fatal(err)
	}
}
