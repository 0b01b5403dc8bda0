package cnitool

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// ranges returns the configuration of a network with one address range for each of the subnets.
func ranges(subnets ...string) object {
	var sets [][]object
	for _, s := range subnets {
		sets = append(sets, []object{{"subnet": s}})
	}
	return dual.with(object{"ipam": object{"type": "ipam-simple", "ranges": sets}})
}

// TestRangeChanged changes the address ranges of a network with running containers. ADD must fail,
// and name the key gatewayConflict, which allows the change. With this key, ADD gives the bridge a
// second gateway address. The old gateway address must stay until the last container that uses it
// is gone.
func TestRangeChanged(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		old, new object
	}{
		{"another subnet", ranges("10.88.0.0/24", "fd88::/64"), ranges("10.89.0.0/24", "fd89::/64")},
		{"a larger subnet", ranges("10.88.0.0/24", "fd88::/64"), ranges("10.88.0.0/16", "fd88::/48")},
		{"a smaller subnet", ranges("10.88.0.0/16", "fd88::/48"), ranges("10.88.0.0/24", "fd88::/64")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, tt.old, "nft")
			before := setuptest.Dump(t)
			n.outside(false)
			c := n.containers(3)
			n.must("add", c[0], c[1])
			n.configure(tt.new)
			if tt.name == "another subnet" {
				const way = `set "gatewayConflict" to "add"`
				if f := on("ADD", 3, tt.new).run(t).failed(t); f.Code != 101 || !strings.Contains(f.Msg, way) {
					t.Errorf("got %+v, want code 101 and %s", f, way)
				}
				if f := on("STATUS", 3, tt.new).run(t).failed(t); f.Code != 50 || !strings.Contains(f.Msg, way) {
					t.Errorf("STATUS: got %+v, want code 50 and %s", f, way)
				}
			}
			n.configure(tt.new.with(object{"gatewayConflict": "add"}))
			n.must("add", c[2])
			n.must("check", c...)
			works := func(when string, c ...*setup.Namespace) {
				t.Helper()
				for _, from := range c {
					for _, to := range append(gateways(t, from), "192.0.2.2", "2001:db8::2") {
						if !setuptest.Ping(t, from, to) {
							t.Errorf("%s: %s gets no answer from %s", when, from.Path, to)
						}
					}
				}
			}
			works("with containers of both ranges", c...)
			n.must("del", c[0])
			works("with one of the old range", c[1:]...)
			n.must("del", c[1])
			works("with none of the old range", c[2])
			n.must("check", c[2])
			if tt.name == "another subnet" {
				want := []netip.Prefix{netip.MustParsePrefix("10.89.0.1/24"), netip.MustParsePrefix("fd89::1/64")}
				if got, err := setup.Addresses(n.Namespace, "br0"); err != nil || !slices.Equal(got, want) {
					t.Errorf("the bridge has %v, %v, want %v", got, err, want)
				}
			}
			n.must("del", c[2])
			setuptest.Run(t, "ip", "link", "delete", "uplink")
			setuptest.Same(t, before, "DEL left traces")
		})
	}
}

// gateways returns the gateways of a container's default routes.
func gateways(t testing.TB, c *setup.Namespace) (all []string) {
	t.Helper()
	for _, family := range []string{"-4", "-6"} {
		words := strings.Fields(setuptest.In(t, c, "ip", family, "route", "show", "default"))
		all = append(all, words[slices.Index(words, "via")+1])
	}
	return all
}
