// Package ipam hands out IP addresses: the ranges that they come from, the leases
// that say who has which, and the store that keeps them for as long as the host
// is up.
package ipam

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
)

// Range is a run of addresses of one subnet, Start and End included, of which
// the gateway's is never handed out.
type Range struct {
	Subnet     netip.Prefix
	Start, End netip.Addr
	Gateway    netip.Addr // none when zero
	OnRequest  bool       // only who asks for an address of it gets one
}

// Set is a list of ranges of one family that are used as one pool. An attachment
// gets one address from each Set that it asks of.
type Set []Range

// Complete returns the range with what it leaves open filled in: from the address
// after the network's to the last, which in IPv4 is the one before broadcast, and
// the first as the gateway. A range that begins or ends with the network's or the
// broadcast address, which host-local takes, does so beside it. Subnets that have neither a network's nor a broadcast
// address (/31 and /127, RFC 3021 and RFC 6164) are used whole, of which the
// second address is the gateway's; those of one address (/32 and /128) have no
// gateway. Each error begins with the field that it is about.
func (r Range) Complete() (Range, []error) {
	bad := checkSubnet(r.Subnet)
	if r.Subnet = r.Subnet.Masked(); !r.Subnet.IsValid() || r.Subnet.Addr().Is4In6() {
		return r, bad
	}
	first, last := usable(r.Subnet)
	if !r.Start.IsValid() || r.Start == r.Subnet.Addr() {
		r.Start = first
	}
	if !r.End.IsValid() || r.End == last.Next() && r.Subnet.Contains(r.End) {
		r.End = last
	}
	if !r.Gateway.IsValid() && !r.Subnet.IsSingleIP() {
		r.Gateway = r.Subnet.Addr().Next()
	}
	return r, append(bad, r.mistakes()...)
}

// checkSubnet lists what is wrong with a subnet.
func checkSubnet(p netip.Prefix) []error {
	switch {
	case !p.IsValid():
		return []error{errors.New("subnet: it is missing; give one, such as 10.1.0.0/16")}
	case p.Addr().Is4In6():
		return []error{fmt.Errorf("subnet: %s is IPv4 in the clothes of IPv6; write it as 10.1.0.0/16", p)}
	case p != p.Masked():
		return []error{fmt.Errorf("subnet: %s has host bits set; write %s", p, p.Masked())}
	}
	return nil
}

// usable returns the first and the last address of a subnet that an interface can
// have.
func usable(subnet netip.Prefix) (first, last netip.Addr) {
	first, last = subnet.Addr(), lastOf(subnet)
	if first.BitLen()-subnet.Bits() < 2 {
		return first, last
	}
	if first.Is4() {
		last = last.Prev() // before broadcast
	}
	return first.Next(), last
}

// mistakes lists what is wrong with a range that leaves nothing open.
func (r Range) mistakes() (bad []error) {
	first, last := usable(r.Subnet)
	for _, field := range []struct {
		name  string
		value netip.Addr
	}{{"rangeStart", r.Start}, {"rangeEnd", r.End}} {
		if v := field.value; v.IsValid() && !between(first, v, last) {
			bad = append(bad, fmt.Errorf("%s: %s is none of the addresses of subnet %s, which are %s to %s",
				field.name, v, r.Subnet, first, last))
		}
	}
	if err := r.checkGateway(); err != nil {
		bad = append(bad, err)
	}
	if len(bad) > 0 {
		return bad
	}
	if r.End.Less(r.Start) {
		return []error{fmt.Errorf("rangeStart: %s comes after rangeEnd, %s; swap them", r.Start, r.End)}
	}
	if r.Start == r.End && r.Start == r.Gateway {
		return []error{fmt.Errorf("gateway: %s is the only address of the range, which leaves none to hand out; widen the range", r.Gateway)}
	}
	return nil
}

// checkGateway says what is wrong with the gateway. It may be outside of the subnet, such as a
// router's fe80::1: the container reaches it on its link all the same.
func (r Range) checkGateway() error {
	g := r.Gateway
	first, last := usable(r.Subnet)
	switch {
	case !g.IsValid():
		return nil
	case r.Subnet.Contains(g.WithZone("")) && (g.Zone() != "" || !between(first, g, last)):
		return fmt.Errorf("gateway: %s is none of the addresses of subnet %s, which are %s to %s", g, r.Subnet, first, last)
	case r.Subnet.Contains(g):
		return nil
	case g.BitLen() != first.BitLen() || g.Zone() != "" || g.IsUnspecified() || g.IsMulticast() || g.IsLoopback():
		return fmt.Errorf("gateway: %s is no gateway for subnet %s; give an address of a router on the link", g, r.Subnet)
	}
	return nil
}

// between says whether a is from first to last, all of one family.
func between(first, a, last netip.Addr) bool {
	return a.BitLen() == first.BitLen() && a.Zone() == "" && !a.Less(first) && !last.Less(a)
}

// Contains says whether an address may be handed out from the range.
func (r Range) Contains(a netip.Addr) bool {
	return a != r.Gateway && between(r.Start, a, r.End)
}

// Overlaps says whether two ranges share an address.
func (r Range) Overlaps(o Range) bool {
	return Span{r.Start, r.End}.overlaps(Span{o.Start, o.End})
}

// Size is how many addresses the range hands out, or math.MaxUint64 if they are
// more than that.
func (r Range) Size() uint64 {
	start, end := r.Start.As16(), r.End.As16()
	high := binary.BigEndian.Uint64(end[:8]) - binary.BigEndian.Uint64(start[:8])
	low := binary.BigEndian.Uint64(end[8:]) - binary.BigEndian.Uint64(start[8:])
	if high != 0 || low == math.MaxUint64 {
		return math.MaxUint64
	}
	if between(r.Start, r.Gateway, r.End) {
		return low
	}
	return low + 1
}

// String is the range as a person writes it.
func (r Range) String() string { return Span{r.Start, r.End}.String() }

// Split returns the parts of a range, handed out as a set: what is left of it
// without the spans to exclude and those for static use, and the latter, which may
// lie anywhere in the subnet and are handed out on request. Each error begins with
// the field that it is about.
func (r Range) Split(exclude, static []Span) (set Set, bad []error) {
	first, last := usable(r.Subnet)
	for _, s := range exclude {
		if !s.overlaps(Span{r.Start, r.End}) && !slices.ContainsFunc(static, s.overlaps) {
			bad = append(bad, fmt.Errorf("exclude: %s has no address of range %s; leave it out", s, r))
		}
	}
	for _, s := range static {
		if !between(first, s.First, last) || !between(first, s.Last, last) {
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
func (r Range) without(spans []Span) (parts Set) {
	slices.SortFunc(spans, func(a, b Span) int { return a.First.Compare(b.First) })
	for _, s := range spans {
		if !s.overlaps(Span{r.Start, r.End}) {
			continue
		}
		before := r
		before.End, r.Start = s.First.Prev(), s.Last.Next()
		if parts = parts.with(before); !between(r.Start, r.End, r.End) {
			return parts
		}
	}
	return parts.with(r)
}

// with appends a range that is not empty.
func (s Set) with(r Range) Set {
	if !between(r.Start, r.End, r.End) || r.Size() == 0 {
		return s
	}
	return append(s, r)
}

// Serves says whether an address may be handed out from the set.
func (s Set) Serves(a netip.Addr) bool {
	return slices.ContainsFunc(s, func(r Range) bool { return r.Contains(a) })
}

// from is the range of the set that an address which it serves is handed out from.
func (s Set) from(a netip.Addr) Range {
	return s[slices.IndexFunc(s, func(r Range) bool { return r.Contains(a) })]
}

// dynamic says whether an address may be handed out without a request for it.
func (s Set) dynamic(a netip.Addr) bool {
	return slices.ContainsFunc(s, func(r Range) bool { return !r.OnRequest && r.Contains(a) })
}
