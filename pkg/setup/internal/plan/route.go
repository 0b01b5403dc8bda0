package plan

import (
	"net/netip"
	"slices"
)

// Route is a route of a container. An invalid Gateway means that the destination is
// on the link. What is zero or nil is left to the kernel.
type Route struct {
	Destination netip.Prefix
	Gateway     netip.Addr
	MTU, AdvMSS int  // bytes
	Priority    int  // the lower the better: RTA_PRIORITY
	Table       *int // the main one when nil
	Scope       *int // RT_SCOPE_*; IPv4 only
}

// Same says whether two routes are one.
func (r Route) Same(other Route) bool {
	equal := func(a, b *int) bool { return a == b || a != nil && b != nil && *a == *b }
	if !equal(r.Table, other.Table) || !equal(r.Scope, other.Scope) {
		return false
	}
	r.Table, r.Scope = other.Table, other.Scope
	return r == other
}

// AddRoute adds a route of the container, unless it is there already: the kernel would refuse
// it (EEXIST).
func (p *Port) AddRoute(r Route) {
	if !slices.ContainsFunc(p.Routes, r.Same) {
		p.Routes = append(p.Routes, r)
	}
}

// String is where the route leads, and by which gateway.
func (r Route) String() string {
	if !r.Gateway.IsValid() {
		return r.Destination.String() + " on the link"
	}
	return r.Destination.String() + " via " + r.Gateway.String()
}
