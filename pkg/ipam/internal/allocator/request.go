package allocator

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/leases"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/ranges"
)

var (
	// ErrExhausted means that every address in a set of ranges is leased.
	ErrExhausted = errors.New("no address is left")
	// ErrTaken means that a requested address is leased to another attachment.
	ErrTaken = errors.New("is leased already")
	// ErrNotServed means that no set of ranges can give out a requested address.
	ErrNotServed = errors.New("is not available")
	// ErrNoBlock means that this host owns no block of a shared pool with addresses of a set.
	ErrNoBlock = errors.New("this host has no block")
	// ErrUnheard means that this host may not use its blocks of a shared pool, because etcd was not
	// heard.
	ErrUnheard = errors.New("etcd was not heard")
	// ErrShared means that another network of the store has leases in a range.
	ErrShared = errors.New("is in use by another network; give one of the two networks another subnet, or a dataDir of its own")
)

// OutsideError is ErrNoBlock about addresses that a request wants: they are in blocks of a shared pool
// that this host does not own.
type OutsideError struct {
	Network   string
	Addresses []netip.Addr
}

// Error returns a message that names the network and the addresses.
func (e *OutsideError) Error() string {
	var list []string
	for _, a := range e.Addresses {
		list = append(list, a.String())
	}
	return fmt.Sprintf("network %s: %v with %s", e.Network, ErrNoBlock, strings.Join(list, ", "))
}

// Unwrap returns ErrNoBlock.
func (e *OutsideError) Unwrap() error { return ErrNoBlock }

// Refused reports whether an error is about the request. All other errors are about the store.
func Refused(err error) bool {
	for _, refusal := range []error{ErrExhausted, ErrTaken, ErrNotServed, ErrShared, ErrNoBlock, ErrUnheard} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// Request asks for the addresses of an attachment: one address from each set of ranges.
type Request struct {
	leases.Attachment
	Namespace leases.Namespace
	Sets      []ranges.Set // the ranges must be complete and must not overlap
	Addresses []netip.Addr // at most one of each set; in a set without a requested address, any address is given
	Sticky    leases.Sticky
	StickyDir string // folder of the sticky file, which outlives a reboot; required if Sticky is not zero
	// Pool says that hosts share the addresses of the sets. Only addresses of this host's blocks
	// are given out then (see Store.SetBlocks), from the fullest block first.
	Pool bool
	// AcceptOther allows another address if the name in Sticky had an address of a block that this
	// host does not own. Otherwise the error is an OutsideError.
	AcceptOther bool
	// InUse reports whether a lease may still be in use. If a set has no free address, Reserve
	// calls InUse for the leases of the set. It also calls InUse for the lease of a requested
	// address. Reserve ends a lease that is not in use. If InUse is nil, every lease counts as in
	// use.
	InUse func(leases.Lease) bool
}

// inUse calls the field InUse. If InUse is nil, it returns true.
func (r Request) inUse(l leases.Lease) bool { return r.InUse == nil || r.InUse(l) }

// BySet returns the requested address of each set. It returns the zero address for a set without a
// requested address. The error is ErrNotServed.
func (r Request) BySet() ([]netip.Addr, error) {
	requested := make([]netip.Addr, len(r.Sets))
	for _, a := range r.Addresses {
		i := slices.IndexFunc(r.Sets, func(s ranges.Set) bool { return s.Serves(a) })
		if i < 0 {
			return nil, fmt.Errorf("%s %w: %s", a, ErrNotServed, r.whyNot(a))
		}
		if requested[i].IsValid() {
			return nil, fmt.Errorf("%s %w: %s is requested from the same set, and a set gives one address", a, ErrNotServed, requested[i])
		}
		requested[i] = a
	}
	return requested, nil
}

// whyNot returns a text that says why no set can give out an address.
func (r Request) whyNot(a netip.Addr) string {
	var all []string
	for _, set := range r.Sets {
		for _, from := range set {
			if from.Gateway == a {
				return "it is the address of the gateway"
			}
			all = append(all, from.String())
		}
	}
	return "it is outside the ranges " + strings.Join(all, ", ")
}
