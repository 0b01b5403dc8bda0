package rtnl_test

import (
	"net/netip"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestAddressesOfDeletedLink checks that a link has no addresses if another program has deleted it
// after the look-up, and that the deletion of an address then succeeds.
func TestAddressesOfDeletedLink(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	setuptest.Run(t, "ip", "link", "add", "br0", "type", "bridge")
	setuptest.Run(t, "ip", "address", "add", "10.88.0.1/24", "dev", "br0")
	l, err := rtnl.ByName(host.Namespace, "br0")
	if err != nil {
		t.Fatal(err)
	}
	if found, err := rtnl.ListAddresses(host.Namespace, l); err != nil || len(found) != 1 {
		t.Errorf("before the deletion: got %v, %v", found, err)
	}
	setuptest.Run(t, "ip", "link", "delete", "br0")
	if found, err := rtnl.ListAddresses(host.Namespace, l); err != nil || len(found) != 0 {
		t.Errorf("after the deletion: got %v, %v", found, err)
	}
	var b netns.Batch
	rtnl.DeleteAddress(&b, l, netip.MustParsePrefix("10.88.0.1/24"))
	if err := host.Send(b); err != nil {
		t.Error(err)
	}
}
