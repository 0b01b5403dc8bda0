package plan

import (
	"net/netip"
	"slices"
)

// Route is a route of a container. If Gateway is the zero Addr, the destination is reached
// directly on the link. For other fields that are zero or nil, the kernel chooses a default.
type Route struct {
	Destination netip.Prefix
	Gateway     netip.Addr
	MTU, AdvMSS int  // bytes
	Priority    int  // RTA_PRIORITY: the kernel uses the route with the lowest value
	Table       *int // nil means the main table
	Scope       *int // RT_SCOPE_*; IPv4 only
}

// Same reports whether two routes are equal.
func (r Route) Same(other Route) bool {
	equal := func(a, b *int) bool { return a == b || a != nil && b != nil && *a == *b }
	if !equal(r.Table, other.Table) || !equal(r.Scope, other.Scope) {
		return false
	}
	r.Table, r.Scope = other.Table, other.Scope
	return r == other
}

// AddRoute adds a route of the container, unless the port already has an equal route: the kernel
// would refuse a second equal route (EEXIST).
func (p *Port) AddRoute(r Route) {
	if !slices.ContainsFunc(p.Routes, r.Same) {
		p.Routes = append(p.Routes, r)
	}
}

// String returns the destination and the gateway.
func (r Route) String() string {
	if !r.Gateway.IsValid() {
		return r.Destination.String() + " on the link"
	}
	return r.Destination.String() + " via " + r.Gateway.String()
}
