package ranges

import (
	"fmt"
	"net/netip"
	"strings"
)

// Interval contains all addresses of one family from First to Last. It includes First and Last.
type Interval struct{ First, Last netip.Addr }

// ParseInterval parses an address, a subnet, or two addresses with a hyphen between them: the first
// and the last address of the interval.
func ParseInterval(text string) (Interval, error) {
	wrong := fmt.Errorf("%q is not an address, subnet or interval; write it as 10.1.0.9, 10.1.0.64/28 or 10.1.0.9-10.1.0.20", text)
	if p, err := netip.ParsePrefix(text); err == nil && p == p.Masked() {
		return Interval{p.Addr(), Last(p)}, nil
	}
	from, to, isPair := strings.Cut(text, "-")
	if !isPair {
		to = from
	}
	first, err := netip.ParseAddr(strings.TrimSpace(from))
	if err != nil || first.Zone() != "" {
		return Interval{}, wrong
	}
	last, err := netip.ParseAddr(strings.TrimSpace(to))
	if err != nil || !Between(first, last, last) {
		return Interval{}, wrong
	}
	return Interval{first, last}, nil
}

// overlaps reports whether the intervals i and o have an address in common.
func (i Interval) overlaps(o Interval) bool {
	return Between(i.First, o.First, i.Last) || Between(o.First, i.First, o.Last)
}

// String returns "FIRST-LAST".
func (i Interval) String() string { return i.First.String() + "-" + i.Last.String() }

// Between reports whether a is one of the addresses from first to last. It returns false for an
// address of another family than first, and for an address with a zone.
func Between(first, a, last netip.Addr) bool {
	return a.BitLen() == first.BitLen() && a.Zone() == "" && !a.Less(first) && !last.Less(a)
}

// Last returns the last address of a subnet.
func Last(p netip.Prefix) netip.Addr {
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
