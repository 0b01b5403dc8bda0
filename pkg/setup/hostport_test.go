package setup_test

import (
	"errors"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/pkg/setup/setuptest"
)

// TestHostPortRace checks that only one of two containers gets a host port if both publish it at
// the same time. PublishPort must fail for the other container. The first container publishes the
// port on all addresses, the second on one address. The kernel would accept both, because the two
// elements of the nftables map have different keys.
func TestHostPortRace(t *testing.T) {
	t.Parallel()
	host := setuptest.EnterHost(t)
	var ports []*setup.Port
	for i, address := range []string{"0.0.0.0", "192.0.2.1"} {
		p := port(t, i+1, setup.ForwardNone)
		p.Network.HostPorts = []netip.Prefix{netip.MustParsePrefix("10.88.0.0/24")}
		attach(t, host, p)
		p.HostPorts = []setup.HostPort{{Protocol: unix.IPPROTO_TCP, Address: netip.MustParseAddr(address), Port: 8080, Container: 80}}
		ports = append(ports, p)
	}
	for round := range 100 {
		results := make([]error, len(ports))
		var ready, done sync.WaitGroup
		ready.Add(len(ports))
		for i, p := range ports {
			done.Go(func() {
				results[i] = withOwnHost(host, func(own *setup.Host) error {
					ready.Done()
					ready.Wait()
					return own.PublishPort(p)
				})
			})
		}
		done.Wait()
		published := 0
		for i, p := range ports {
			if taken := new(setup.PortTakenError); results[i] == nil {
				published++
			} else if !errors.As(results[i], &taken) {
				t.Fatalf("round %d: %v, want that the port is taken", round, results[i])
			}
			if err := host.UnpublishPort(p.Attachment, p.HostPorts...); err != nil {
				t.Fatal(err)
			}
		}
		if published != 1 {
			t.Fatalf("round %d: %d of 2 have the port", round, published)
		}
	}
}
