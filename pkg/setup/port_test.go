package setup_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// port returns the plan of a dual-stack port on bridge br0 for container number i. Numbers begin
// with 1.
func port(t testing.TB, i int, forward setup.Forward) *setup.Port {
	t.Helper()
	name := fmt.Sprintf("c%d", i)
	return &setup.Port{
		Attachment: setup.Attachment{Network: "net", Container: name, Interface: "eth0"},
		Container:  setuptest.Container(t, name),
		Network: &setup.Network{
			Bridge: "br0", IPv4: true, IPv6: true,
			Gateways:   []netip.Prefix{netip.MustParsePrefix("10.88.0.1/24"), netip.MustParsePrefix("fd88::1/64")},
			Forward:    forward,
			Masquerade: []netip.Prefix{netip.MustParsePrefix("10.88.0.0/24"), netip.MustParsePrefix("fd88::/64")},
		},
		Addresses: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.88.0.%d/24", i+1)), netip.MustParsePrefix(fmt.Sprintf("fd88::%x/64", i+1)),
		},
		Routes: []setup.Route{
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.88.0.1")},
			{Destination: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fd88::1")},
		},
	}
}

// dropAll sets the policy of FORWARD to DROP for both families, with iptables-nft or iptables-legacy.
func dropAll(t testing.TB, flavour string) {
	setuptest.DropForward(t, "iptables-"+flavour, "ip6tables-"+flavour)
}

// TestForward checks, for each value of Forward, which pings pass on a host whose FORWARD policy is
// DROP. With ForwardNone, two containers must not reach each other.
func TestForward(t *testing.T) {
	t.Parallel()
	for _, flavours := range [][]string{{"nft"}, {"legacy"}, {"nft", "legacy"}} {
		for _, tt := range []struct {
			name                  string
			forward               setup.Forward
			onBridge, fromOutside bool
		}{
			{"none", setup.ForwardNone, false, false},
			{"iptables", setup.ForwardIPTables, true, true},
			{"sysctl", setup.ForwardSysctl, true, false},
		} {
			t.Run(fmt.Sprintf("%v/%s", flavours, tt.name), func(t *testing.T) {
				t.Parallel()
				host := setuptest.EnterHost(t)
				for _, f := range flavours {
					dropAll(t, f)
				}
				outside := joinOutside(t, host)
				before := setuptest.Dump(t)

				a, b := port(t, 1, tt.forward), port(t, 2, tt.forward)
				for _, p := range []*setup.Port{a, b} {
					if _, err := host.AttachPort(p); err != nil {
						t.Fatal(err)
					}
					if err := host.VerifyPort(p); err != nil {
						t.Errorf("right after AttachPort: %v", err)
					}
				}
				for _, path := range []struct {
					from *setup.Namespace
					to   string
					want bool
				}{
					{a.Container, "10.88.0.3", tt.onBridge}, {a.Container, "fd88::3", tt.onBridge},
					{a.Container, "10.88.0.1", true}, {a.Container, "fd88::1", true},
					{host.Namespace, "10.88.0.2", true}, {host.Namespace, "fd88::2", true},
					{a.Container, "192.0.2.2", tt.fromOutside}, {a.Container, "2001:db8::2", tt.fromOutside},
					{outside, "10.88.0.2", tt.fromOutside}, {outside, "fd88::2", tt.fromOutside},
				} {
					if got := setuptest.Ping(t, path.from, path.to); got != path.want {
						t.Errorf("ping from %s to %s: %v, want %v", path.from.Path, path.to, got, path.want)
					}
				}
				for _, p := range []*setup.Port{a, b, a} {
					if err := host.DetachPort(p.Attachment, "br0"); err != nil {
						t.Error(err)
					}
				}
				setuptest.Same(t, before, "DetachPort left traces")
			})
		}
	}
}

// joinOutside connects a new namespace to the host and returns it. The namespace represents another
// host, with the addresses 192.0.2.2 and 2001:db8::2 and routes to the containers.
func joinOutside(t testing.TB, host *setup.Host) *setup.Namespace {
	t.Helper()
	outside := setuptest.Container(t, "outside")
	prefixes := func(p ...string) (out []netip.Prefix) {
		for _, s := range p {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	if err := setup.Join(
		setup.End{Namespace: host.Namespace, Interface: "uplink", Addresses: prefixes("192.0.2.1/24", "2001:db8::1/64")},
		setup.End{Namespace: outside, Interface: "eth0", Addresses: prefixes("192.0.2.2/24", "2001:db8::2/64")},
	); err != nil {
		t.Fatal(err)
	}
	setuptest.In(t, outside, "ip", "route", "add", "10.88.0.0/24", "via", "192.0.2.1")
	setuptest.In(t, outside, "ip", "route", "add", "fd88::/64", "via", "2001:db8::1")
	return outside
}
