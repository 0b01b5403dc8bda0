package leases

import (
	"net/netip"
	"time"
)

// Attachment names one interface of one container on one network. None of its parts holds a
// zero byte: no environment variable can hold one either.
type Attachment struct{ Network, Container, Interface string }

// Lease says which attachment has an address, and since when.
type Lease struct {
	Attachment
	Address   netip.Prefix // with the prefix length of its subnet
	Gateway   netip.Addr   // zero: no gateway
	Namespace Namespace    // zero: not known
	Time      time.Time    // when the attachment got the address
	Sticky    Sticky
	Until     time.Time // zero, or the attachment has ended and the address is kept for Sticky.Name until then
}

// Kept reports whether the address is kept for a name and no attachment has it.
func (l Lease) Kept() bool { return !l.Until.IsZero() }

// Sticky asks that an address is kept for a name, such as the name of a pod, and given to the
// next attachment with that name. The zero Sticky asks for nothing.
type Sticky struct {
	Name string
	For  time.Duration // how long the address is kept after the attachment has ended
}
