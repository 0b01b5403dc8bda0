package kernel

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// TestReadNeighbourTable checks the limit of the table of neighbour entries against the sysctl
// gc_thresh3, which only the first network namespace shows.
func TestReadNeighbourTable(t *testing.T) {
	host, err := setup.CurrentHost()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	table, err := ReadNeighbourTable(host.Namespace, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	if table.Limit <= 0 {
		t.Errorf("got %+v, want a limit", table)
	}
	text, err := os.ReadFile("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
	if err != nil {
		return // only the first network namespace has this sysctl
	}
	if want, _ := strconv.Atoi(strings.TrimSpace(string(text))); table.Limit != want {
		t.Errorf("got %+v, want the limit %d", table, want)
	}
}
