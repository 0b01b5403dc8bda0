package ipam

import (
	"fmt"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/allocator"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/hostlocal"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/records"
)

// allocator returns the allocator for a network.
func (s *Store) allocator(n *records.Network) allocator.Allocator {
	return allocator.Allocator{Network: n, MaxQueued: s.maxQueued}
}

// update calls f with a network, and writes the changes that f makes. If the network is new to
// the store, update makes it first.
func (s *Store) update(name string, f func(*records.Network) error) error {
	return s.named(s.file.Update(func(tx *boltfile.Tx) error { return s.withNetwork(tx, name, f) }))
}

// try does the same as update, but writes nothing.
func (s *Store) try(name string, f func(*records.Network) error) error {
	return s.named(s.file.Try(func(tx *boltfile.Tx) error { return s.withNetwork(tx, name, f) }))
}

// updateExisting does the same as update, but does not call f if the network has no leases that f
// could free. This is the case if the network is not in the store, and host-local has no
// reservations for it.
func (s *Store) updateExisting(name string, f func(*records.Network) error) error {
	if _, imports := s.pending(name); imports {
		return s.update(name, f)
	}
	return s.named(s.file.Update(func(tx *boltfile.Tx) error { return withExisting(tx, name, f) }))
}

// view calls f with a network, to read it. It does not call f if there is no such network. The
// network also has the leases that the next update would import, but view does not write them.
func (s *Store) view(name string, f func(*records.Network) error) error {
	if rebuilds, imports := s.pending(name); rebuilds || imports {
		return s.try(name, f)
	}
	return s.named(s.file.View(func(tx *boltfile.Tx) error { return withExisting(tx, name, f) }))
}

// withExisting calls f with a network if the network is in the store.
func withExisting(tx *boltfile.Tx, name string, f func(*records.Network) error) error {
	n, err := records.Open(tx, name)
	if n == nil || err != nil {
		return err
	}
	return f(n)
}

// withNetwork calls f with a network. It makes the network if it is missing, and imports the
// leases of attached containers into the new network. It also imports the reservations of
// host-local.
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

// rebuild makes a network whose leases are those of the attached containers.
func (s *Store) rebuild(tx *boltfile.Tx, name string) (*records.Network, error) {
	n, err := records.Create(tx, name)
	if err != nil || s.FindAttached == nil {
		return n, err
	}
	found, err := s.FindAttached(name)
	if err == nil {
		err = n.TakeOver(found)
	}
	if err != nil {
		return nil, fmt.Errorf("take over the addresses of attached containers: %w", err)
	}
	return n, nil
}

// importHostLocal imports the reservations that host-local has made since the boot. They belong
// to containers that keep running while an administrator replaces host-local by ipam-simple.
// importHostLocal imports them once for each network, and does not change host-local's folder.
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

// pending reports what the next update of a network would import. rebuilds is set if the network
// is new to the store, so that update would import the leases of attached containers. imports is
// set if update would import reservations of host-local. If the store cannot be read, pending
// returns false for both, because the caller gets the same error later.
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
