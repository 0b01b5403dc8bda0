package blocks

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// set returns the set of a subnet without the excluded addresses.
func set(t *testing.T, subnet string, exclude ...string) ipam.Set {
	t.Helper()
	r, bad := ipam.Range{Subnet: netip.MustParsePrefix(subnet)}.Complete()
	var list []ipam.Interval
	for _, text := range exclude {
		i, err := ipam.ParseInterval(text)
		bad = append(bad, err)
		list = append(list, i)
	}
	s, mistakes := r.Split(list, nil)
	for _, err := range append(bad, mistakes...) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestFrom(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		pool Pool
		want []string
	}{
		{"IPv4", Pool{set(t, "10.1.0.0/29"), 30}, []string{"10.1.0.0/30", "10.1.0.4/30"}},
		{"IPv6", Pool{set(t, "fd00::/124"), 126}, []string{"fd00::/126", "fd00::4/126", "fd00::8/126", "fd00::c/126"}},
		{"one block", Pool{set(t, "10.1.0.0/26"), 26}, []string{"10.1.0.0/26"}},
		{"single addresses, without network, gateway and broadcast address", Pool{set(t, "10.1.0.0/29"), 32},
			[]string{"10.1.0.2/32", "10.1.0.3/32", "10.1.0.4/32", "10.1.0.5/32", "10.1.0.6/32"}},
		{"excluded blocks", Pool{set(t, "10.1.0.0/28", "10.1.0.4/30", "10.1.0.8-10.1.0.10"), 30}, []string{"10.1.0.0/30", "10.1.0.8/30", "10.1.0.12/30"}},
		{"only the gateway is left of a block", Pool{set(t, "10.1.0.0/29", "10.1.0.2-10.1.0.3"), 30}, []string{"10.1.0.4/30"}},
		{"nothing", Pool{nil, 26}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for b := range tt.pool.From("seed") {
				got = append(got, b.String())
				if !tt.pool.Contains(b) {
					t.Errorf("Contains(%s) is false", b)
				}
			}
			for _, b := range []string{"10.9.0.0/30", "10.1.0.0/25", "10.1.0.1/32", "fd01::/126"} {
				if tt.pool.Contains(netip.MustParsePrefix(b)) {
					t.Errorf("Contains(%s) is true", b)
				}
			}
			slices.Sort(got)
			want := slices.Sorted(slices.Values(tt.want))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestFromStart checks that hosts begin at different blocks, even in a pool of 2^58 blocks, and that
// the blocks after the first one follow it.
func TestFromStart(t *testing.T) {
	t.Parallel()
	p := Pool{set(t, "fd00::/64"), 122}
	starts := map[netip.Prefix]bool{}
	for host := range 1000 {
		var first []netip.Prefix
		for b := range p.From(fmt.Sprint(host)) {
			if first = append(first, b); len(first) == 2 {
				break
			}
		}
		starts[first[0]] = true
		if after := netip.PrefixFrom(netip.MustParseAddr(lastOf(first[0])).Next(), 122); first[1] != after {
			t.Fatalf("%s comes after %s, want %s", first[1], first[0], after)
		}
	}
	if len(starts) != 1000 {
		t.Errorf("1000 hosts begin at %d blocks", len(starts))
	}
}

// lastOf returns the last address of a block of 64 IPv6 addresses.
func lastOf(b netip.Prefix) string {
	a := b.Addr().As16()
	a[15] |= 63
	return netip.AddrFrom16(a).String()
}

// TestOf checks that an address has a block if a container can have the address.
func TestOf(t *testing.T) {
	t.Parallel()
	static, err := ipam.ParseInterval("10.1.0.32/29")
	if err != nil {
		t.Fatal(err)
	}
	s, bad := set(t, "10.1.0.0/26", "10.1.0.9")[0].Split(nil, []ipam.Interval{static})
	if bad != nil {
		t.Fatal(bad)
	}
	p := Pool{s, 29}
	for a, want := range map[string]string{
		"10.1.0.2": "10.1.0.0/29", "10.1.0.39": "10.1.0.32/29", // static addresses too
		"10.1.0.1": "", "10.1.0.9": "", "10.1.0.63": "", "10.2.0.2": "", "fd00::2": "",
	} {
		b, ok := p.Of(netip.MustParseAddr(a))
		if ok != (want != "") || ok && b.String() != want {
			t.Errorf("%s: %v, %v, want %q", a, b, ok, want)
		}
	}
	if p.Contains(netip.MustParsePrefix("10.1.0.32/29")) {
		t.Error("a block of static addresses belongs to the stock")
	}
}
