package ipam

import (
	"fmt"
	"net/netip"
	"strings"
)

// Span is a run of addresses of one family, First and Last included.
type Span struct{ First, Last netip.Addr }

// ParseSpan reads an address, a subnet, or the first and the last address with a
// hyphen between them.
func ParseSpan(text string) (Span, error) {
	wrong := fmt.Errorf("%q is no address, subnet or span; write one as 10.1.0.9, 10.1.0.64/28 or 10.1.0.9-10.1.0.20", text)
	if p, err := netip.ParsePrefix(text); err == nil && p == p.Masked() {
		return Span{p.Addr(), lastOf(p)}, nil
	}
	from, to, isSpan := strings.Cut(text, "-")
	if !isSpan {
		to = from
	}
	first, err := netip.ParseAddr(strings.TrimSpace(from))
	if err != nil || first.Zone() != "" {
		return Span{}, wrong
	}
	last, err := netip.ParseAddr(strings.TrimSpace(to))
	if err != nil || !between(first, last, last) {
		return Span{}, wrong
	}
	return Span{first, last}, nil
}

// overlaps says whether two spans share an address.
func (s Span) overlaps(o Span) bool {
	return between(s.First, o.First, s.Last) || between(o.First, s.First, o.Last)
}

// String is the span as a person writes it.
func (s Span) String() string { return s.First.String() + "-" + s.Last.String() }

// lastOf returns the last address of a subnet.
func lastOf(p netip.Prefix) netip.Addr {
	all := p.Addr().As16()
	for i := p.Bits() + 128 - p.Addr().BitLen(); i < 128; i++ {
		all[i/8] |= 1 << (7 - i%8)
	}
	last := netip.AddrFrom16(all)
	if p.Addr().Is4() {
		last = last.Unmap()
	}
	return last
}
