package ipam

import (
	"errors"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/stickyfile"
)

// Reserve returns a lease for each set of a request, in the order of the sets. For each set, it
// takes the first of these addresses that it finds:
//
//   - the requested address;
//   - the address that the attachment has already;
//   - the address that the attachment's name had before;
//   - an address that was never used, or else the address that was freed longest ago. In a shared
//     pool, this address comes from the block with the most leases that has a free address.
//
// Reserve frees all other addresses of the attachment. As long as at least one address is free, the
// duration of Reserve does not depend on the number of leases. The error may be ErrExhausted,
// ErrTaken, ErrNotServed, ErrShared, ErrNoBlock or ErrUnheard. After an error, nothing has changed.
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

// reserve does the work of Reserve within a transaction.
func (s *Store) reserve(n *records.Network, r Request) ([]Lease, error) {
	now := time.Now().Round(0)
	a := s.allocator(n)
	if err := a.Expire(now); err != nil {
		return nil, err
	}
	if err := s.loadSticky(n, r.StickyDir, r.Sticky.For, now); err != nil {
		return nil, err
	}
	r, err := withinBlocks(n, r)
	if err != nil {
		return nil, err
	}
	return a.Reserve(r, now)
}

// Available returns a range for each set of a request. From this range, Reserve could give an
// address to an attachment that has none. Available changes nothing. The error may be ErrExhausted,
// ErrShared, ErrNoBlock or ErrUnheard.
func (s *Store) Available(r Request) (from []Range, err error) {
	err = s.try(r.Network, func(n *records.Network) error {
		r, err := withinBlocks(n, r)
		if err == nil {
			from, err = s.allocator(n).Available(r)
		}
		return err
	})
	return from, err
}

// Release frees the addresses of an attachment, or keeps sticky addresses for its name. It returns
// no error if the attachment has no addresses.
func (s *Store) Release(a Attachment) error {
	return s.updateExisting(a.Network, func(n *records.Network) error { return n.Release(a) })
}

// ReleaseExcept releases all attachments of a network except the valid attachments. After an error,
// it has released nothing.
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

// Free ends a lease from the result of Leases, and all other leases of the same attachment. Unlike
// Release, Free keeps no address for the attachment's name. If another attachment has the address
// by now, Free does nothing.
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

// keptTooLong reports whether an address is kept for a name whose keeping time has ended, by the time of
// day. No container has the address then, whatever the clock says.
func keptTooLong(l Lease) bool { return l.Kept() && !l.Until.After(time.Now()) }

// loadSticky adds the names in the sticky file in dir (such as those of pods) to a network, and
// keeps the addresses of each name for the duration keepFor. After a boot, loadSticky reads the
// file only once for each network.
//
// If keepFor is 0, the network has no sticky addresses, and loadSticky does nothing. On a network
// with sticky addresses, loadSticky reads the file even for a request without a name. Otherwise
// this request could get an address that belongs to a name.
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

// saveSticky writes the names (such as those of pods) whose sticky addresses the transaction has
// changed. It writes them to each sticky file that the network has read since the boot.
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

// withSticky opens the sticky file in dir, calls f with it, and closes the file.
func (s *Store) withSticky(dir string, f func(*stickyfile.File) error) error {
	file, err := stickyfile.Open(dir, s.dir())
	if err != nil {
		return err
	}
	return errors.Join(f(file), file.Close())
}
