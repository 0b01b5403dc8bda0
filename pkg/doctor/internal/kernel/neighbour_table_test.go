package kernel

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestReadNeighbourTable compares the limits of the tables of neighbour entries with the output of
// ip-ntable(8). The sysctl gc_thresh3 exists only in the first network namespace.
func TestReadNeighbourTable(t *testing.T) {
	host, err := setup.CurrentHost()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	for family, name := range map[int]string{unix.AF_INET: "arp_cache", unix.AF_INET6: "ndisc_cache"} {
		table, err := ReadNeighbourTable(host.Namespace, family)
		if err != nil {
			t.Fatal(err)
		}
		out := setuptest.Run(t, "ip", "ntable", "show", "name", name)
		if want := fmt.Sprintf("thresh3 %d ", table.Limit); table.Limit == 0 || !strings.Contains(out, want) {
			t.Errorf("%s: got the limit %d, ip ntable has\n%s", name, table.Limit, out)
		}
	}
}
