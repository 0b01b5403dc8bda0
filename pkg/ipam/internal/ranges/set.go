package ranges

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/bridgeveth/bridgeveth/internal/shortsort"
)

// Set is a list of ranges of one address family that are used as one pool of addresses. An
// attachment gets one address from each set.
type Set []Range

// Split returns a set with the addresses of a range. The set has two kinds of ranges:
//
//   - ranges of addresses that are neither excluded nor static;
//   - ranges of static addresses, which are given out only if they are requested. They may be
//     anywhere in the subnet.
//
// Each error begins with the name of its field.
func (r Range) Split(exclude, static []Interval) (set Set, bad []error) {
	first, last := usable(r.Subnet)
	for _, s := range exclude {
		if !s.overlaps(Interval{r.Start, r.End}) && !slices.ContainsFunc(static, s.overlaps) {
			bad = append(bad, fmt.Errorf("exclude: %s shares no address with range %s; delete the entry", s, r))
		}
	}
	for _, s := range static {
		if !Between(first, s.First, last) || !Between(first, s.Last, last) {
			bad = append(bad, fmt.Errorf("static: %s is not within the usable addresses of subnet %s; give addresses from %s to %s", s, r.Subnet, first, last))
		}
	}
	if len(bad) > 0 {
		return nil, bad
	}
	set = r.without(slices.Concat(exclude, static))
	if len(set) == 0 {
		return nil, []error{errors.New("exclude: exclude and static leave no address for other containers; widen the range, or list fewer addresses")}
	}
	for _, s := range static {
		part := Range{r.Subnet, s.First, s.Last, r.Gateway, true}
		set = append(set, part.without(exclude)...)
	}
	return set, nil
}

// without returns the parts of a range that are left without the removed intervals. It leaves out
// parts in which no address can be given out.
func (r Range) without(removed []Interval) (parts Set) {
	shortsort.Stable(removed, func(a, b Interval) bool { return a.First.Less(b.First) })
	for _, s := range removed {
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

// with adds a range to the set, unless the range has no addresses.
func (s Set) with(r Range) Set {
	if !Between(r.Start, r.End, r.End) || r.Size() == 0 {
		return s
	}
	return append(s, r)
}

// Within returns the part of a range that is in a subnet. The result has at most one range.
func (r Range) Within(subnet netip.Prefix) Set {
	first, last := subnet.Addr(), Last(subnet)
	if !(Interval{first, last}).overlaps(Interval{r.Start, r.End}) {
		return nil
	}
	if r.Start.Less(first) {
		r.Start = first
	}
	if last.Less(r.End) {
		r.End = last
	}
	return Set{}.with(r)
}

// Serves reports whether the set can give out the address a.
func (s Set) Serves(a netip.Addr) bool {
	return slices.ContainsFunc(s, func(r Range) bool { return r.Contains(a) })
}

// RangeOf returns the range of the set that can give out the address a. There must be such a range:
// the caller checks this by Serves.
func (s Set) RangeOf(a netip.Addr) Range {
	return s[slices.IndexFunc(s, func(r Range) bool { return r.Contains(a) })]
}

// Dynamic reports whether the set can give out the address a to an attachment that has not
// requested this address.
func (s Set) Dynamic(a netip.Addr) bool {
	return slices.ContainsFunc(s, func(r Range) bool { return !r.OnRequest && r.Contains(a) })
}
