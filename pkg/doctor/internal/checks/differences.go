package checks

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// AddDifferences adds a station for each difference between an end and the result of ADD. The
// parameter said contains the differences that have a station already. AddDifferences skips them,
// and adds each new difference. It returns true if it added a station.
func (p *Path) AddDifferences(e *End, said map[string]bool) (any bool) {
	station := "changed since ADD (" + e.Name + ")"
	host, container := e.differences()
	for _, line := range lines(host) {
		if !said[line] {
			p.Bad(station, "bvctl repair", "%s", line)
			said[line], any = true, true
		}
	}
	for _, line := range lines(container) {
		if !said[line] {
			p.Advise(station, "undo the change, or delete the container and create it again", "%s", line)
			said[line], any = true, true
		}
	}
	return any
}

// HostDiffers reports whether anything on the host differs from the result of ADD.
func (e *End) HostDiffers() bool {
	host, _ := e.differences()
	return host != nil
}

// LacksForwardRules reports whether the chain FORWARD lacks rules that ADD made for the bridge.
func (e *End) LacksForwardRules() bool {
	host, _ := e.differences()
	return errors.Is(host, setup.DifferenceError{Kind: setup.ForwardRules})
}

// lacksGateway reports whether ADD added the gateway address a to the bridge, and the bridge lacks
// it now.
func (e *End) lacksGateway(a netip.Addr) bool {
	host, _ := e.differences()
	return errors.Is(host, setup.DifferenceError{Kind: setup.GatewayAddress, Address: a})
}

// lacksRouteTo reports whether ADD made a route to the address a, and the container lacks it now.
// The route has no gateway, because the address is on the container's link.
func (e *End) lacksRouteTo(a netip.Addr) bool {
	_, container := e.differences()
	return errors.Is(container, setup.DifferenceError{Kind: setup.RouteOnLink, Address: a})
}

// differences returns the errors of Verify. It calls Verify only once for each end.
func (e *End) differences() (host, container error) {
	if e.Verify != nil && !e.verified {
		e.host, e.container = e.Verify()
		e.verified = true
	}
	return e.host, e.container
}

// lines returns the lines of an error. Each line describes one difference.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}
