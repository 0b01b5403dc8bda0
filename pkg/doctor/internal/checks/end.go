package checks

import (
	"net/netip"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// End is one end of a packet's path: a container's interface, or an address beyond the host.
type End struct {
	Name      string           // for people
	Namespace *setup.Namespace // of the container; nil beyond the host
	Interface string           // in the container
	Port      string           // the host end of the veth pair
	Bridge    string           // the bridge that the port should be on
	Addresses []netip.Prefix   // from the result of ADD; for an end beyond the host, its only address
	Routes    []setup.Route    // from the result of ADD, in the main table
	// Verify compares the end with the result of ADD. The two errors contain the differences on the
	// host and in the container, one per line. Verify is nil if there is no record of ADD. It is
	// called at most once.
	Verify func() (host, container error)

	verified        bool
	host, container error // the results of Verify
}

// Address returns the first IPv4 address of the end if is4 is true, otherwise its first IPv6
// address.
func (e *End) Address(is4 bool) (netip.Prefix, bool) {
	i := slices.IndexFunc(e.Addresses, func(a netip.Prefix) bool { return a.Addr().Is4() == is4 })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return e.Addresses[i], true
}

// inSubnet reports whether an address is in a subnet of the container.
func (e *End) inSubnet(a netip.Addr) bool {
	return slices.ContainsFunc(e.Addresses, func(p netip.Prefix) bool { return p.Contains(a) })
}

// givenRoute returns the container's route to an address as ADD made it. If several routes contain
// the address, givenRoute returns the most specific route. If there is no route, the field
// Destination of the result is not valid.
func (e *End) givenRoute(to netip.Addr) (narrowest setup.Route) {
	for _, r := range e.Routes {
		if r.Destination.Contains(to) && r.Destination.Bits() > narrowest.Destination.Bits() {
			narrowest = r
		}
	}
	return narrowest
}

// Command returns a shell command that runs in the container's network namespace.
func (e *End) Command(format string, words ...any) string {
	return report.Command("nsenter --net=%s ", e.Namespace.Path) + report.Command(format, words...)
}

// commandIn returns a shell command that runs in the network namespace of container e, or on the
// host if e is nil.
func commandIn(e *End, format string, words ...any) string {
	if e == nil {
		return report.Command(format, words...)
	}
	return e.Command(format, words...)
}

// nameOf returns the name of container e, or "the host" if e is nil.
func nameOf(e *End) string {
	if e == nil {
		return "the host"
	}
	return e.Name
}
