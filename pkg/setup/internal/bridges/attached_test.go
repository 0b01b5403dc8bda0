package bridges_test

import (
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestAttachedInterfacesWhileNamespaceEnds deletes the network namespace of a container, and calls
// AttachedInterfaces until the kernel has deleted the container's veth pair. This takes the kernel
// some milliseconds, in which it cannot list the addresses of the namespace.
func TestAttachedInterfacesWhileNamespaceEnds(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	port := plan.Port{Attachment: plan.Attachment{Network: "net", Container: "c1", Interface: "eth0"}}
	for range 5 {
		c, err := setup.EnsureNamed("c1")
		if err != nil {
			t.Fatal(err)
		}
		setuptest.Run(t, "ip", "link", "add", "port", "type", "veth", "peer", "name", "eth0", "netns", "c1")
		setuptest.Run(t, "ip", "link", "set", "port", "alias", port.Alias())
		setuptest.In(t, c, "ip", "address", "add", "10.88.0.2/24", "dev", "eth0")
		all, err := bridges.AttachedInterfaces(host.Namespace, "net")
		if err != nil || len(all) != 1 || len(all[0].Addresses) != 1 {
			t.Fatalf("with the container: got %v, %v", all, err)
		}
		c.Close()
		if err := setup.DeleteNamed("c1"); err != nil {
			t.Fatal(err)
		}
		for len(all) > 0 {
			if all, err = bridges.AttachedInterfaces(host.Namespace, "net"); err != nil {
				t.Fatal(err)
			}
		}
	}
}
