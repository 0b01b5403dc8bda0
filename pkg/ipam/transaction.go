package ipam

import (
	"fmt"
	"slices"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/allocator"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/hostlocal"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
)

// allocator returns an allocator for a network in a transaction.
func (s *Store) allocator(n *records.Network) allocator.Allocator {
	return allocator.Allocator{Network: n, MaxQueued: s.maxQueued}
}

// update calls f with a network in a transaction, and writes the changes that f makes. If the
// network is new to the store, update makes it first.
func (s *Store) update(name string, f func(*records.Network) error) error {
	return s.named(s.file.Update(func(tx *boltfile.Tx) error { return s.withNetwork(tx, name, f) }))
}

// try calls f like update, and discards the changes that f makes.
func (s *Store) try(name string, f func(*records.Network) error) error {
	return s.named(s.file.Try(func(tx *boltfile.Tx) error { return s.withNetwork(tx, name, f) }))
}

// updateExisting calls f like update. It does nothing if the network is not in the store and
// host-local has no reservations for it, because there is then no lease that f could free.
func (s *Store) updateExisting(name string, f func(*records.Network) error) error {
	if _, imports := s.pending(name); imports {
		return s.update(name, f)
	}
	return s.named(s.file.Update(func(tx *boltfile.Tx) error { return withExisting(tx, name, f) }))
}

// view calls f with a network, and f may only read. The network contains the leases that the next
// update would import, but view does not write them to the file. If the network is not in the store
// and there is nothing to import, view does not call f.
func (s *Store) view(name string, f func(*records.Network) error) error {
	if rebuilds, imports := s.pending(name); rebuilds || imports {
		return s.try(name, f)
	}
	return s.named(s.file.View(func(tx *boltfile.Tx) error { return withExisting(tx, name, f) }))
}

// withExisting calls f with a network, if the network is in the store.
func withExisting(tx *boltfile.Tx, name string, f func(*records.Network) error) error {
	n, err := records.Open(tx, name)
	if n == nil || err != nil {
		return err
	}
	return f(n)
}

// withNetwork calls f with a network. If the network is not in the store, withNetwork makes it with
// the leases of the attached containers. In any case, withNetwork imports the reservations of
// host-local, unless they were imported into this network before.
func (s *Store) withNetwork(tx *boltfile.Tx, name string, f func(*records.Network) error) error {
	n, err := records.Open(tx, name)
	if err == nil && n == nil {
		n, err = s.rebuild(tx, name)
	}
	if err == nil {
		err = s.importHostLocal(n)
	}
	if err != nil {
		return err
	}
	return f(n)
}

// rebuild makes a network with the leases of the attached containers, which FindAttached returns. It
// also makes each network of FindNetworks that has such leases and is not in the store.
func (s *Store) rebuild(tx *boltfile.Tx, name string) (*records.Network, error) {
	names := []string{name}
	if s.FindNetworks != nil {
		others, err := s.FindNetworks()
		if err != nil {
			return nil, err
		}
		names = append(names, slices.DeleteFunc(others, func(other string) bool { return other == name })...)
	}
	for _, n := range names {
		if err := s.rebuildOne(tx, n, n == name); err != nil {
			return nil, err
		}
	}
	return records.Open(tx, name)
}

// rebuildOne makes a network as rebuild does, unless the network is in the store. If the parameter
// always is false, it makes only a network that has leases.
func (s *Store) rebuildOne(tx *boltfile.Tx, name string, always bool) error {
	if n, err := records.Open(tx, name); n != nil || err != nil {
		return err
	}
	var found []Lease
	var err error
	if s.FindAttached != nil {
		found, err = s.FindAttached(name)
	}
	if err == nil && (always || len(found) > 0) {
		var n *records.Network
		if n, err = records.Create(tx, name); err == nil {
			err = n.TakeOver(found)
		}
	}
	if err != nil {
		return fmt.Errorf("take over the addresses of attached containers: %w", err)
	}
	return nil
}

// importHostLocal imports the reservations that host-local has made since the boot. The reserved
// addresses belong to containers that keep running while an administrator replaces host-local by
// ipam-simple. importHostLocal imports the reservations of each network only once, and does not
// change host-local's folder.
func (s *Store) importHostLocal(n *records.Network) error {
	if !hostlocal.HasNetwork(s.HostLocal, n.Name) || n.Imported(s.HostLocal) {
		return nil
	}
	found, err := hostlocal.Leases(s.HostLocal, n.Name)
	if err != nil {
		return fmt.Errorf("take over reservations of host-local: %w", err)
	}
	if err := n.TakeOver(found); err != nil {
		return err
	}
	return n.SetImported(s.HostLocal)
}

// pending reports which imports the next update of a network would make. The result rebuilds is
// true if the network is new to the store, and update would import the leases of attached
// containers. The result imports is true if update would import reservations of host-local. If the
// store cannot be read, both results are false. The caller then reads the store itself and gets the
// error.
func (s *Store) pending(name string) (rebuilds, imports bool) {
	imports = HasHostLocal(s.HostLocal, name)
	if s.FindAttached == nil && !imports {
		return false, false
	}
	known := false
	err := s.file.View(func(tx *boltfile.Tx) error {
		return withExisting(tx, name, func(n *records.Network) error {
			known, imports = true, imports && !n.Imported(s.HostLocal)
			return nil
		})
	})
	return err == nil && !known && s.FindAttached != nil, err == nil && imports
}
