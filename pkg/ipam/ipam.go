package ipam

import (
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/allocator"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/hostlocal"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/leases"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/ranges"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/stickyfile"
)

type (
	// Range is a run of addresses of one subnet.
	Range = ranges.Range
	// Set is a list of ranges that are used as one pool of addresses.
	Set = ranges.Set
	// Interval is all addresses from one to another.
	Interval = ranges.Interval
	// Attachment names one interface of one container on one network.
	Attachment = leases.Attachment
	// Namespace is the network namespace of a container.
	Namespace = leases.Namespace
	// Lease says which attachment has an address, and since when.
	Lease = leases.Lease
	// Sticky asks that an address is kept for a name.
	Sticky = leases.Sticky
	// Request asks for one address of each set.
	Request = allocator.Request
)

// The first four are errors of Reserve and Available about a request. The others are errors of
// any call about a file.
var (
	// ErrExhausted says that every address of a set is leased.
	ErrExhausted = allocator.ErrExhausted
	// ErrTaken says that a requested address is leased to another attachment.
	ErrTaken = allocator.ErrTaken
	// ErrNotServed says that no set gives out a requested address.
	ErrNotServed = allocator.ErrNotServed
	// ErrShared says that another network of the store has leases in a range.
	ErrShared = allocator.ErrShared
	// ErrDamaged says that a file cannot be read. No address is given out from it.
	ErrDamaged = boltfile.ErrDamaged
	// ErrNewer says that a later release wrote a file.
	ErrNewer = boltfile.ErrNewer
	// ErrSticky marks an error that is about the sticky file, and not about the store.
	ErrSticky = stickyfile.ErrSticky
)

// NamespaceAt returns the namespace that is at path now.
func NamespaceAt(path string) Namespace { return leases.NamespaceAt(path) }

// ParseInterval reads an address, a subnet, or two addresses with a hyphen between them.
func ParseInterval(text string) (Interval, error) { return ranges.ParseInterval(text) }

// HasHostLocal reports whether host-local has a folder for a network in its dataDir.
func HasHostLocal(dataDir, network string) bool { return hostlocal.HasNetwork(dataDir, network) }

// BootTime returns when the host was booted. A file that is older than this belongs to no running
// container.
func BootTime() (time.Time, error) { return hostlocal.BootTime() }
