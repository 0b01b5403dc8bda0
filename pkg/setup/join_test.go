package setup_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestJoinCarrier checks that the operational state of a link is "up" as soon as Join returns. In
// any other state, the kernel drops packets that leave through the link.
func TestJoinCarrier(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	for i := range 20 {
		name := fmt.Sprintf("c%d", i)
		if err := setup.Join(
			setup.End{Namespace: host.Namespace, Interface: name},
			setup.End{Namespace: setuptest.Container(t, name), Interface: "eth0"},
		); err != nil {
			t.Fatal(err)
		}
		state, err := os.ReadFile("/sys/class/net/" + name + "/operstate") // unlike a request to rtnetlink, this does not make the kernel process pending carrier changes
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(string(state)); got != "up" {
			t.Errorf("%s is %s", name, got)
		}
	}
}
