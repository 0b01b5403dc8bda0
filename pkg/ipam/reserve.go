package ipam

import (
	"errors"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/stickyfile"
)

// Reserve returns a lease for each set of a request, in their order. It gives, in this order of
// preference:
//
//   - the requested address;
//   - the address that the attachment has already;
//   - the address that its name had before;
//   - an address that was never used, or else the one that was freed longest ago.
//
// What else the attachment has is freed. Either all of this happens or nothing. The cost does
// not depend on the number of leases, as long as an address is free. The error may be
// ErrExhausted, ErrTaken, ErrNotServed or ErrShared; then nothing has changed.
//
// internal/allocator/choose.go chooses the address.
func (s *Store) Reserve(r Request) (given []Lease, err error) {
	err = s.update(r.Network, func(n *records.Network) error {
		if err := s.file.Preallocate(n.Pages()); err != nil {
			return err
		}
		if given, err = s.reserve(n, r); err != nil {
			return err
		}
		return s.saveSticky(n)
	})
	if err != nil {
		return nil, err
	}
	return given, nil
}

// reserve is Reserve within a transaction.
func (s *Store) reserve(n *records.Network, r Request) ([]Lease, error) {
	now := time.Now().Round(0)
	a := s.allocator(n)
	if err := a.Expire(now); err != nil {
		return nil, err
	}
	if err := s.loadSticky(n, r.StickyDir, r.Sticky.For, now); err != nil {
		return nil, err
	}
	return a.Reserve(r, now)
}

// Available returns the range of each set in which Reserve would find an address for another
// attachment. Unlike Reserve it changes nothing. The error may be ErrExhausted or ErrShared.
func (s *Store) Available(r Request) (from []Range, err error) {
	err = s.try(r.Network, func(n *records.Network) error {
		from, err = s.allocator(n).Available(r)
		return err
	})
	return from, err
}

// Release frees what an attachment holds, or keeps it for its name. To hold nothing is no
// error.
func (s *Store) Release(a Attachment) error {
	return s.updateExisting(a.Network, func(n *records.Network) error { return n.Release(a) })
}

// ReleaseExcept releases the attachments of a network that are not in valid: all of them or,
// after an error, none.
func (s *Store) ReleaseExcept(network string, valid []Attachment) error {
	keep := map[Attachment]bool{}
	for _, a := range valid {
		keep[Attachment{Network: network, Container: a.Container, Interface: a.Interface}] = true
	}
	return s.updateExisting(network, func(n *records.Network) error {
		var stale []Attachment
		err := n.EachAttachment(func(a Attachment) {
			if !keep[a] {
				stale = append(stale, a)
			}
		})
		if err != nil {
			return err
		}
		return n.Release(stale...)
	})
}

// Free ends a lease that Leases has listed, with all that its attachment holds, and keeps no
// address for its name. When another attachment has the address by now, Free does nothing.
func (s *Store) Free(l Lease) error {
	return s.updateExisting(l.Network, func(n *records.Network) error {
		now, leased, err := n.Lease(l.Address.Addr())
		if err != nil || !leased || now.Attachment != l.Attachment {
			return err
		}
		ended := []Lease{now}
		if !now.Kept() {
			if ended, err = n.Held(now.Attachment); err != nil {
				return err
			}
			if err := n.Release(now.Attachment); err != nil {
				return err
			}
		}
		for _, l := range ended {
			if now, leased, err = n.Lease(l.Address.Addr()); err == nil && leased && now.Kept() {
				err = n.Forget(now)
			}
			if err != nil {
				return err
			}
		}
		return s.saveSticky(n)
	})
}

// loadSticky adds the names of a sticky file to a network, with the addresses that they had
// before the host was booted, if that was not done yet. The time for which these addresses are
// kept begins now. keepFor is 0 for a request without a name on a network without sticky
// addresses; a request without a name on other networks must not take the address of a name.
func (s *Store) loadSticky(n *records.Network, dir string, keepFor time.Duration, now time.Time) error {
	if keepFor == 0 || n.StickyLoaded(dir) {
		return nil
	}
	var names map[string][]byte
	err := s.withSticky(dir, func(f *stickyfile.File) (err error) {
		names, err = f.Names(n.Name, func(record []byte) error { _, err := records.DecodeAddresses(record); return err })
		return err
	})
	if err != nil {
		return err
	}
	for key, record := range names {
		if err := n.AddName(key, record, keepFor, now); err != nil {
			return err
		}
	}
	return n.SetStickyLoaded(dir)
}

// saveSticky writes the names that the transaction has changed to the sticky files that the
// network has used since the host was booted.
func (s *Store) saveSticky(n *records.Network) error {
	if len(n.ChangedNames()) == 0 {
		return nil
	}
	for _, dir := range n.StickyFolders() {
		if err := s.withSticky(dir, func(f *stickyfile.File) error { return f.Save(n.Name, n.ChangedNames()) }); err != nil {
			return err
		}
	}
	return nil
}

// withSticky calls f with the sticky file in dir.
func (s *Store) withSticky(dir string, f func(*stickyfile.File) error) error {
	file, err := stickyfile.Open(dir, s.dir())
	if err != nil {
		return err
	}
	return errors.Join(f(file), file.Close())
}
