// Package ipam hands out IP addresses: the ranges that they come from, the leases
// that say who has which, and the store that keeps them for as long as the host
// is up.
package ipam

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
)

// minHostBits is how many bits a subnet must leave for addresses: one for the
// network, one for a gateway, one for a container.
const minHostBits = 2

// Range is a run of addresses of one subnet, Start and End included, of which
// the gateway's is never handed out.
type Range struct {
	Subnet     netip.Prefix
	Start, End netip.Addr
	Gateway    netip.Addr
}

// Set is a list of ranges of one family that are used up one after another. An
// attachment gets one address from each Set that it asks of.
type Set []Range

// Complete returns the range with what it leaves open filled in: from the address
// after the network's to the last, which in IPv4 is the one before broadcast, and
// the first as the gateway. Each error begins with the field that it is about.
func (r Range) Complete() (Range, []error) {
	if !r.Subnet.IsValid() {
		return r, []error{fmt.Errorf("subnet: it is missing; give one, such as 10.1.0.0/16")}
	}
	if network := r.Subnet.Masked(); network != r.Subnet {
		return r, []error{fmt.Errorf("subnet: %s has host bits set; write %s", r.Subnet, network)}
	}
	if r.Subnet.Addr().BitLen()-r.Subnet.Bits() < minHostBits {
		return r, []error{fmt.Errorf("subnet: %s is too small to have a gateway and a container; use a prefix length of at most %d",
			r.Subnet, r.Subnet.Addr().BitLen()-minHostBits)}
	}
	first := r.Subnet.Addr().Next()
	for _, open := range []struct {
		field *netip.Addr
		value netip.Addr
	}{{&r.Start, first}, {&r.End, last(r.Subnet)}, {&r.Gateway, first}} {
		if !open.field.IsValid() {
			*open.field = open.value
		}
	}
	return r, r.mistakes()
}

// mistakes lists what is wrong with a range that leaves nothing open.
func (r Range) mistakes() (bad []error) {
	for _, field := range []struct {
		name  string
		value netip.Addr
	}{{"rangeStart", r.Start}, {"rangeEnd", r.End}, {"gateway", r.Gateway}} {
		if !r.Subnet.Contains(field.value) {
			bad = append(bad, fmt.Errorf("%s: %s is outside subnet %s", field.name, field.value, r.Subnet))
		}
	}
	if len(bad) == 0 && r.End.Less(r.Start) {
		bad = append(bad, fmt.Errorf("rangeStart: %s comes after rangeEnd, %s", r.Start, r.End))
	}
	if len(bad) == 0 && r.Start == r.End && r.Start == r.Gateway {
		bad = append(bad, fmt.Errorf("gateway: %s is the only address of the range, which leaves none to hand out", r.Gateway))
	}
	return bad
}

// last is the last address of a subnet that a container may have.
func last(subnet netip.Prefix) netip.Addr {
	a := subnet.Addr().As16()
	bits := subnet.Bits() + 128 - subnet.Addr().BitLen()
	for i := bits; i < 128; i++ {
		a[i/8] |= 1 << (7 - i%8)
	}
	end := netip.AddrFrom16(a)
	if subnet.Addr().Is4() {
		return end.Unmap().Prev() // before broadcast
	}
	return end
}

// Contains says whether an address may be handed out from the range.
func (r Range) Contains(a netip.Addr) bool {
	return a != r.Gateway && !a.Less(r.Start) && !r.End.Less(a) && a.BitLen() == r.Start.BitLen()
}

// Overlaps says whether two ranges share an address.
func (r Range) Overlaps(o Range) bool {
	return r.Start.BitLen() == o.Start.BitLen() && !r.End.Less(o.Start) && !o.End.Less(r.Start)
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
	if !r.Gateway.Less(r.Start) && !r.End.Less(r.Gateway) {
		return low
	}
	return low + 1
}

// String is the range as a person writes it; it is also its key in the store.
func (r Range) String() string { return r.Start.String() + "-" + r.End.String() }

// Serves says whether an address may be handed out from the set.
func (s Set) Serves(a netip.Addr) bool {
	return slices.ContainsFunc(s, func(r Range) bool { return r.Contains(a) })
}
