package ranges

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Set is a list of ranges of one family that are used as one pool of addresses. An attachment
// gets one address from each set.
type Set []Range

// Split returns the parts of a range, handed out as a set: what is left of it
// without the spans to exclude and those for static use, and the latter, which may
// lie anywhere in the subnet and are handed out on request. Each error begins with
// the field that it is about.
func (r Range) Split(exclude, static []Interval) (set Set, bad []error) {
	first, last := usable(r.Subnet)
	for _, s := range exclude {
		if !s.overlaps(Interval{r.Start, r.End}) && !slices.ContainsFunc(static, s.overlaps) {
			bad = append(bad, fmt.Errorf("exclude: %s has no address of range %s; leave it out", s, r))
		}
	}
	for _, s := range static {
		if !Between(first, s.First, last) || !Between(first, s.Last, last) {
			bad = append(bad, fmt.Errorf("static: %s is not within the addresses of subnet %s, which are %s to %s", s, r.Subnet, first, last))
		}
	}
	if len(bad) > 0 {
		return nil, bad
	}
	set = r.without(slices.Concat(exclude, static))
	if len(set) == 0 {
		return nil, []error{errors.New("exclude: it and static leave no address to hand out; widen the range, or leave some out")}
	}
	for _, s := range static {
		part := Range{r.Subnet, s.First, s.Last, r.Gateway, true}
		set = append(set, part.without(exclude)...)
	}
	return set, nil
}

// without cuts spans out of a range. Parts that have no address to hand out are
// left out.
func (r Range) without(spans []Interval) (parts Set) {
	slices.SortFunc(spans, func(a, b Interval) int { return a.First.Compare(b.First) })
	for _, s := range spans {
		if !s.overlaps(Interval{r.Start, r.End}) {
			continue
		}
		before := r
		before.End, r.Start = s.First.Prev(), s.Last.Next()
		if parts = parts.with(before); !Between(r.Start, r.End, r.End) {
			return parts
		}
	}
	return parts.with(r)
}

// with appends a range that is not empty.
func (s Set) with(r Range) Set {
	if !Between(r.Start, r.End, r.End) || r.Size() == 0 {
		return s
	}
	return append(s, r)
}

// Serves says whether an address may be handed out from the set.
func (s Set) Serves(a netip.Addr) bool {
	return slices.ContainsFunc(s, func(r Range) bool { return r.Contains(a) })
}

// RangeOf returns the range of the set that gives out an address. The set serves the address.
func (s Set) RangeOf(a netip.Addr) Range {
	return s[slices.IndexFunc(s, func(r Range) bool { return r.Contains(a) })]
}

// Dynamic reports whether an address may be given out without a request for it.
func (s Set) Dynamic(a netip.Addr) bool {
	return slices.ContainsFunc(s, func(r Range) bool { return !r.OnRequest && r.Contains(a) })
}
