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

// Split returns a set with the parts of a range:
//
//   - the range without the excluded and the static addresses;
//   - the static addresses, which are given out on request only. They may be anywhere in the
//     subnet.
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

// without returns the parts of a range that are outside of the removed intervals. It leaves out
// parts in which no address can be given out.
func (r Range) without(removed []Interval) (parts Set) {
	slices.SortFunc(removed, func(a, b Interval) int { return a.First.Compare(b.First) })
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

// with returns the set with a range added, unless the range is empty.
func (s Set) with(r Range) Set {
	if !Between(r.Start, r.End, r.End) || r.Size() == 0 {
		return s
	}
	return append(s, r)
}

// Serves reports whether the set gives out an address.
func (s Set) Serves(a netip.Addr) bool {
	return slices.ContainsFunc(s, func(r Range) bool { return r.Contains(a) })
}

// RangeOf returns the range of the set that gives out an address. The caller has checked by
// Serves that there is such a range.
func (s Set) RangeOf(a netip.Addr) Range {
	return s[slices.IndexFunc(s, func(r Range) bool { return r.Contains(a) })]
}

// Dynamic reports whether the set may give out an address without a request for it.
func (s Set) Dynamic(a netip.Addr) bool {
	return slices.ContainsFunc(s, func(r Range) bool { return !r.OnRequest && r.Contains(a) })
}
