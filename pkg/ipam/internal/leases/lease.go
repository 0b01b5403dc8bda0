package leases

import (
	"net/netip"
	"time"
)

// Attachment names one interface of one container on one network. None of the three names may
// contain a zero byte, because the store separates the names by zero bytes.
type Attachment struct{ Network, Container, Interface string }

// Lease says which attachment has an address, and since when the attachment has it.
type Lease struct {
	Attachment
	Address   netip.Prefix // with the prefix length of its subnet
	Gateway   netip.Addr   // zero: no gateway
	Namespace Namespace    // zero: the namespace is not known
	Time      time.Time    // when the attachment got the address
	Sticky    Sticky
	Until     time.Time // the address is kept for Sticky.Name until this time; zero while the attachment exists
}

// Kept reports whether the address is only kept for a name, such as a pod's, and no attachment has
// it.
func (l Lease) Kept() bool { return !l.Until.IsZero() }

// Sticky is the part of a request that asks to keep an address for a name, such as the name of a
// pod. The next attachment with this name gets the address. The zero Sticky asks for nothing.
type Sticky struct {
	Name string
	For  time.Duration // how long the address is kept after the attachment has ended
}
