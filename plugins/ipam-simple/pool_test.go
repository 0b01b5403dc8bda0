package ipamsimple

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

const pooled = `{"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "ipam-simple", "subnet": "10.1.0.0/24",
	"pool": {"etcd": {"endpoints": ["http://10.0.0.1:2379"]}, "block": 30}}}`

// own records that the host owns a block, and that etcd was heard at the time heard, relative to now.
func own(t *testing.T, dir, block string, heard time.Duration) {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatal(err)
	}
	s, err := ipam.Open(dir, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.SetBlocks("net", time.Duration(now.Nano())+heard, []ipam.Block{{Subnet: netip.MustParsePrefix(block), Revision: 7}}); err != nil {
		t.Fatal(err)
	}
}

// TestPool checks that ADD gives out only addresses of the host's blocks, and that it claims a block
// once if they do not suffice.
func TestPool(t *testing.T) {
	dir := t.TempDir()
	claims := 0
	var failure error
	p := Plugin{claim: func([]byte, ...netip.Addr) error {
		if claims++; failure == nil {
			own(t, dir, "10.1.0.8/30", 0)
		}
		return failure
	}}
	attach := func(container string) (string, error) {
		a := args(t, container, pooled)
		c, err := ipamconfig.Read(a)
		if err != nil {
			t.Fatal(err)
		}
		c.DataDir = dir
		result, err := p.add(c, a)
		if err != nil {
			return "", err
		}
		return result.IPs[0].Address.String(), nil
	}
	for i, want := range []string{"10.1.0.8/24", "10.1.0.9/24", "10.1.0.10/24", "10.1.0.11/24"} {
		if got, err := attach(string(rune('a' + i))); got != want || err != nil || claims != 1 {
			t.Errorf("ADD %d after %d claims: %s, %v, want %s", i, claims, got, err, want)
		}
	}
	claims, failure = 0, plugin.Errorf(types.ErrTryAgainLater, "etcd unreachable since noon")
	_, err := attach("e")
	wantError(t, err, types.ErrTryAgainLater, "ipam.pool: all addresses in the blocks of this host are leased, and the claim of another block failed: etcd unreachable since noon")
	failure = plugin.Errorf(plugin.CodeExhausted, "every block of the pool has an owner")
	_, err = attach("e")
	wantError(t, err, plugin.CodeExhausted, "every block of the pool has an owner")
	failure = errors.New("no answer")
	own(t, dir, "10.1.0.16/30", -25*time.Hour)
	_, err = attach("e")
	wantError(t, err, types.ErrTryAgainLater, "etcd was not heard for 25h0m0s, and a host may use its blocks for 24h0m0s, and the claim of a block failed: no answer")
	own(t, dir, "10.1.0.8/30", 0)
	p.claim = func([]byte, ...netip.Addr) error { claims++; return nil } // others take the claimed addresses at once
	_, err = attach("e")
	wantError(t, err, types.ErrTryAgainLater, "ipam.pool: all addresses in the blocks of this host are leased, and the claim of another block failed: other containers have taken its addresses meanwhile; try again")
	if claims != 4 {
		t.Errorf("%d claims, want one for each of four calls", claims)
	}
}

// TestPoolRequested checks that ADD claims the blocks of requested addresses once, also before etcd was
// heard, and that it says which address it cannot have.
func TestPoolRequested(t *testing.T) {
	dir := t.TempDir()
	var claimed []string
	failure := error(nil)
	p := Plugin{claim: func(_ []byte, addresses ...netip.Addr) error {
		for _, a := range addresses {
			claimed = append(claimed, a.String())
		}
		if failure == nil {
			own(t, dir, "10.1.0.8/30", 0)
		}
		return failure
	}}
	attach := func(container, address string) (string, error) {
		a := args(t, container, pooled)
		a.Args = "IP=" + address
		c, err := ipamconfig.Read(a)
		if err != nil {
			t.Fatal(err)
		}
		c.DataDir = dir
		result, err := p.add(c, a)
		if err != nil {
			return "", err
		}
		return result.IPs[0].Address.String(), nil
	}
	if got, err := attach("a", "10.1.0.9"); got != "10.1.0.9/24" || err != nil || strings.Join(claimed, " ") != "10.1.0.9" {
		t.Errorf("got %s, %v, after claims for %s", got, err, claimed)
	}
	own(t, dir, "10.1.0.16/30", 0)
	if got, err := attach("b", "10.1.0.10"); got != "10.1.0.10/24" || err != nil || strings.Join(claimed, " ") != "10.1.0.9 10.1.0.10" {
		t.Errorf("got %s, %v, after claims for %s", got, err, claimed)
	}
	if got, err := attach("c", "10.1.0.11"); got != "10.1.0.11/24" || err != nil || len(claimed) != 2 {
		t.Errorf("got %s, %v, after claims for %s", got, err, claimed)
	}
	failure = plugin.Errorf(plugin.CodeTaken, "address 10.1.0.30: block 10.1.0.28/30 belongs to host \"b\" (ID 7, network net)")
	_, err := attach("d", "10.1.0.30")
	wantError(t, err, plugin.CodeTaken, "ipam.pool: network net: this host has no block with 10.1.0.30, and the claim of a block failed: "+
		"address 10.1.0.30: block 10.1.0.28/30 belongs to host \"b\" (ID 7, network net)")
	_, err = attach("d", "10.2.0.30")
	wantError(t, err, types.ErrInvalidNetworkConfig, "CNI_ARGS: IP: 10.2.0.30 is not available: it is outside the ranges 10.1.0.1-10.1.0.254; request another address")
	if len(claimed) != 3 {
		t.Errorf("claims for %s", claimed)
	}
}

// TestPoolSticky checks that a pod whose address is in a block of another host gets another address.
func TestPoolSticky(t *testing.T) {
	dir, stickyDir := t.TempDir(), t.TempDir()
	claims := 0
	p := Plugin{claim: func(_ []byte, addresses ...netip.Addr) error {
		if claims++; len(addresses) != 1 || addresses[0].String() != "10.1.0.8" {
			t.Errorf("claim for %s", addresses)
		}
		return plugin.Errorf(plugin.CodeTaken, "the block belongs to another host")
	}}
	for i, tt := range []struct{ block, want string }{
		{"10.1.0.8/30", "10.1.0.8/24"}, {"10.1.0.16/30", "10.1.0.16/24"}, {"10.1.0.16/30", "10.1.0.16/24"},
	} {
		own(t, dir, tt.block, 0)
		a := args(t, string(rune('a'+i)), pooled)
		a.Args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"
		c, err := ipamconfig.Read(a)
		if err != nil {
			t.Fatal(err)
		}
		c.DataDir, c.StickyDir, c.StickyFor, c.Pod = dir, stickyDir, time.Hour, "default/web"
		result, err := p.add(c, a)
		if err != nil || result.IPs[0].Address.String() != tt.want {
			t.Errorf("ADD %d: %v, %v, want %s", i, result, err, tt.want)
		}
		s, err := ipam.Open(dir, time.Minute)
		if err == nil {
			err = errors.Join(s.Release(c.Attachment(a)), s.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if claims != 1 {
		t.Errorf("%d claims, want one", claims)
	}
}

// TestNoEtcd checks that no plugin contains the client of etcd.
func TestNoEtcd(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "../...", "../../cmd/bridgeveth").Output()
	if err != nil || !strings.Contains(string(out), "/pkg/ipamconfig\n") {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "go.etcd.io/etcd") || strings.Contains(line, "google.golang.org/grpc") {
			t.Errorf("a plugin contains %s", line)
		}
	}
}
