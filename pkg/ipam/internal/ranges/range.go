package ranges

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
)

// Range is a run of addresses of one subnet, Start and End included, of which
// the gateway's is never handed out.
type Range struct {
	Subnet     netip.Prefix
	Start, End netip.Addr
	Gateway    netip.Addr // none when zero
	OnRequest  bool       // only who asks for an address of it gets one
}

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
		if v := field.value; v.IsValid() && !Between(first, v, last) {
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
	case r.Subnet.Contains(g.WithZone("")) && (g.Zone() != "" || !Between(first, g, last)):
		return fmt.Errorf("gateway: %s is none of the addresses of subnet %s, which are %s to %s", g, r.Subnet, first, last)
	case r.Subnet.Contains(g):
		return nil
	case g.BitLen() != first.BitLen() || g.Zone() != "" || g.IsUnspecified() || g.IsMulticast() || g.IsLoopback():
		return fmt.Errorf("gateway: %s is no gateway for subnet %s; give an address of a router on the link", g, r.Subnet)
	}
	return nil
}

// Contains says whether an address may be handed out from the range.
func (r Range) Contains(a netip.Addr) bool {
	return a != r.Gateway && Between(r.Start, a, r.End)
}

// Overlaps says whether two ranges share an address.
func (r Range) Overlaps(o Range) bool {
	return Interval{r.Start, r.End}.overlaps(Interval{o.Start, o.End})
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
	if Between(r.Start, r.Gateway, r.End) {
		return low
	}
	return low + 1
}

// String is the range as a person writes it.
func (r Range) String() string { return Interval{r.Start, r.End}.String() }
