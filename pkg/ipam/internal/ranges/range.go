package ranges

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
)

// Range contains the addresses of one subnet from Start to End. It includes Start and End. The
// address of the gateway is never given out.
type Range struct {
	Subnet     netip.Prefix
	Start, End netip.Addr
	Gateway    netip.Addr // zero: no gateway
	OnRequest  bool       // an address of the range is given out only if it is requested
}

// Complete returns the range with its empty fields filled in, and the errors in it. The defaults
// are:
//
//   - Start is the address after the network address.
//   - End is the last address of the subnet; in IPv4 it is the address before the broadcast address.
//   - Gateway is the address after the network address.
//
// A subnet of two addresses (/31 and /127, RFC 3021 and RFC 6164) has no network address and no
// broadcast address. Both of its addresses are used, and the second address is the gateway. A
// subnet of one address has no gateway.
//
// Like host-local, Complete accepts the network address as Start, and the broadcast address as End.
// It then moves Start or End by one address. Each error begins with the name of its field.
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
	return r, append(bad, r.check()...)
}

// checkSubnet returns the errors in the subnet of a range.
func checkSubnet(p netip.Prefix) []error {
	switch {
	case !p.IsValid():
		return []error{errors.New("subnet: it is missing; give one, such as 10.1.0.0/16")}
	case p.Addr().Is4In6():
		return []error{fmt.Errorf("subnet: %s is an IPv4-mapped IPv6 subnet; write it as 10.1.0.0/16", p)}
	case p != p.Masked():
		return []error{fmt.Errorf("subnet: %s has host bits set; write %s", p, p.Masked())}
	}
	return nil
}

// usable returns the first and the last address of a subnet that an interface can use.
func usable(subnet netip.Prefix) (first, last netip.Addr) {
	first, last = subnet.Addr(), Last(subnet)
	if first.BitLen()-subnet.Bits() < 2 {
		return first, last
	}
	if first.Is4() {
		last = last.Prev() // the address before the broadcast address
	}
	return first.Next(), last
}

// check returns the errors in a range whose fields are all set.
func (r Range) check() (bad []error) {
	first, last := usable(r.Subnet)
	for _, field := range []struct {
		name  string
		value netip.Addr
	}{{"rangeStart", r.Start}, {"rangeEnd", r.End}} {
		if v := field.value; v.IsValid() && !Between(first, v, last) {
			bad = append(bad, fmt.Errorf("%s: %s is not a usable address of subnet %s; give an address from %s to %s",
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
		return []error{fmt.Errorf("gateway: %s is the only address of the range, so no address is left for containers; widen the range", r.Gateway)}
	}
	return nil
}

// checkGateway returns an error if the gateway cannot be used. The gateway may be outside of the
// subnet, such as a router's address fe80::1. The container then reaches the gateway directly on
// the link.
func (r Range) checkGateway() error {
	g := r.Gateway
	first, last := usable(r.Subnet)
	switch {
	case !g.IsValid():
		return nil
	case r.Subnet.Contains(g.WithZone("")) && (g.Zone() != "" || !Between(first, g, last)):
		return fmt.Errorf("gateway: %s is not a usable address of subnet %s; give an address from %s to %s", g, r.Subnet, first, last)
	case r.Subnet.Contains(g):
		return nil
	case g.BitLen() != first.BitLen() || g.Zone() != "" || g.IsUnspecified() || g.IsMulticast() || g.IsLoopback():
		return fmt.Errorf("gateway: %s cannot be a gateway for subnet %s; give the address of a router on the link", g, r.Subnet)
	}
	return nil
}

// Contains reports whether the range can give out the address a.
func (r Range) Contains(a netip.Addr) bool {
	return a != r.Gateway && Between(r.Start, a, r.End)
}

// Overlaps reports whether the ranges r and o have an address in common.
func (r Range) Overlaps(o Range) bool {
	return Interval{r.Start, r.End}.overlaps(Interval{o.Start, o.End})
}

// Size returns the number of addresses that the range can give out, at most math.MaxUint64.
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

// String returns "START-END".
func (r Range) String() string { return Interval{r.Start, r.End}.String() }
