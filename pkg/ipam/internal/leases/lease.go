package leases

import (
	"net/netip"
	"time"
)

// Attachment names one interface of one container on one network. No part may contain a zero
// byte, because the store separates the parts by zero bytes.
type Attachment struct{ Network, Container, Interface string }

// Lease says which attachment has an address, and since when.
type Lease struct {
	Attachment
	Address   netip.Prefix // with the prefix length of its subnet
	Gateway   netip.Addr   // zero: no gateway
	Namespace Namespace    // zero: not known
	Time      time.Time    // when the attachment got the address
	Sticky    Sticky
	Until     time.Time // end of the time for which the address is kept for Sticky.Name; zero while the attachment exists
}

// Kept reports whether the address is kept for a name and no attachment has it.
func (l Lease) Kept() bool { return !l.Until.IsZero() }

// Sticky asks to keep an address for a name, such as the name of a pod, and to give it to the
// next attachment with this name. The zero Sticky asks for nothing.
type Sticky struct {
	Name string
	For  time.Duration // how long the address is kept after the attachment has ended
}
