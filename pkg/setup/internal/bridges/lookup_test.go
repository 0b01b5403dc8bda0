package bridges_test

import (
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestFailedLookUp checks that functions which look up a link return the error of a failed look-up,
// and do not treat the link as missing. Each look-up fails because the Namespace is closed.
func TestFailedLookUp(t *testing.T) {
	t.Parallel()
	setuptest.EnterHost(t)
	n, err := setup.OpenNamespace(setuptest.Container(t, "c1").Path)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := bridges.IsBridgeOrVLAN(n, "br0.5", "br0"); err != nil || !found {
		t.Errorf("IsBridgeOrVLAN of a link that is gone: got %v, %v", found, err)
	}
	if found, err := bridges.HasPort(n, plan.Attachment{Network: "net"}); err != nil || found {
		t.Errorf("HasPort without a port: got %v, %v", found, err)
	}
	n.Close()
	if _, err := bridges.IsBridgeOrVLAN(n, "br0.5", "br0"); err == nil {
		t.Error("IsBridgeOrVLAN takes a failed look-up for a link that is gone")
	}
	if _, err := bridges.HasPort(n, plan.Attachment{Network: "net"}); err == nil {
		t.Error("HasPort takes a failed look-up for an answer")
	}
	if !n.HasIPv6() {
		t.Error("HasIPv6 takes a failed look-up for a kernel without IPv6")
	}
}
