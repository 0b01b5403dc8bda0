package ipam

import (
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/allocator"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/hostlocal"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/leases"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/ranges"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/stickyfile"
)

type (
	// Range contains consecutive addresses of one subnet.
	Range = ranges.Range
	// Set is a list of ranges of one address family that are used as one pool of addresses.
	Set = ranges.Set
	// Interval contains all addresses from a first to a last address.
	Interval = ranges.Interval
	// Attachment names one interface of one container on one network.
	Attachment = leases.Attachment
	// Namespace is the network namespace of a container.
	Namespace = leases.Namespace
	// Lease says which attachment has an address, and since when the attachment has it.
	Lease = leases.Lease
	// Sticky is the part of a request that asks to keep an address for a name.
	Sticky = leases.Sticky
	// Block is a part of a shared pool that this host may give out.
	Block = records.Block
	// OutsideError is the ErrNoBlock about addresses that a request wants. They are in blocks of a
	// shared pool that this host does not own.
	OutsideError = allocator.OutsideError
	// Request asks for the addresses of an attachment: one address from each set of ranges.
	Request = allocator.Request
)

// ErrExhausted, ErrTaken, ErrNotServed, ErrShared, ErrNoBlock and ErrUnheard are errors about a
// request. Only Reserve and Available return them. ErrDamaged, ErrNewer and ErrSticky are errors about a file. Any function
// of a Store may return them.
var (
	// ErrExhausted means that every address in a set of ranges is leased.
	ErrExhausted = allocator.ErrExhausted
	// ErrTaken means that a requested address is leased to another attachment.
	ErrTaken = allocator.ErrTaken
	// ErrNotServed means that no set of ranges can give out a requested address.
	ErrNotServed = allocator.ErrNotServed
	// ErrShared means that another network of the store has leases in a range.
	ErrShared = allocator.ErrShared
	// ErrNoBlock means that this host owns no block of a shared pool with addresses of a set.
	ErrNoBlock = allocator.ErrNoBlock
	// ErrUnheard means that this host may not use its blocks of a shared pool, because etcd was not
	// heard since the boot or for OfflineTime.
	ErrUnheard = allocator.ErrUnheard
	// ErrDamaged means that a file cannot be read. No address is given out in this case.
	ErrDamaged = boltfile.ErrDamaged
	// ErrNewer means that a later release has written a file.
	ErrNewer = boltfile.ErrNewer
	// ErrSticky marks an error about the sticky file, as opposed to an error about the store.
	ErrSticky = stickyfile.ErrSticky
)

// NamespaceAt returns the network namespace whose file is at path now.
func NamespaceAt(path string) Namespace { return leases.NamespaceAt(path) }

// ParseInterval parses an address, a subnet, or two addresses with a hyphen between them.
func ParseInterval(text string) (Interval, error) { return ranges.ParseInterval(text) }

// HasHostLocal reports whether host-local has a folder for a network in its dataDir.
func HasHostLocal(dataDir, network string) bool { return hostlocal.HasNetwork(dataDir, network) }

// BootTime returns the time at which the host was booted. A reservation or record from before this
// time belongs to no running container.
func BootTime() (time.Time, error) { return hostlocal.BootTime() }
