package ipamsimple

import (
	"cmp"
	"errors"
	"io/fs"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

func (p Plugin) wait() time.Duration { return cmp.Or(p.lockWait, defaultLockWait) }

// open opens the store, and creates the store if it is missing.
func (p Plugin) open(c *ipamconfig.Config) (*ipam.Store, error) {
	s, err := ipam.Open(c.DataDir, p.wait())
	return p.withSources(c, s, err)
}

// openToFree opens the store for a caller that frees leases. If there is no store, there are no
// leases to free, and the error is fs.ErrNotExist.
func (p Plugin) openToFree(c *ipamconfig.Config) (*ipam.Store, error) {
	if ipam.HasHostLocal(c.ImportFrom, c.Name) {
		return p.open(c) // host-local may have a reservation for the container
	}
	return ipam.OpenExisting(c.DataDir, p.wait())
}

// openToRead opens the store for a caller that only reads. If there is no store, it opens an
// empty store in memory.
func (p Plugin) openToRead(c *ipamconfig.Config) (*ipam.Store, error) {
	s, err := ipam.OpenExisting(c.DataDir, p.wait())
	if errors.Is(err, fs.ErrNotExist) {
		s, err = ipam.OpenInMemory()
	}
	return p.withSources(c, s, err)
}

// withSources tells the store where to find the addresses that containers already have, for
// networks that are new to the store.
func (p Plugin) withSources(c *ipamconfig.Config, s *ipam.Store, err error) (*ipam.Store, error) {
	if err == nil {
		s.HostLocal, s.FindAttached = c.ImportFrom, p.attachedLeases
		s.FindNetworks = func() ([]string, error) { return recordedNetworks(c.DataDir) }
	}
	return s, err
}

// use calls f with an opened store and then closes the store. err is the error of opening the
// store. use returns the error of opening, of f or of closing, with a CNI error code.
func use(c *ipamconfig.Config, s *ipam.Store, err error, f func() error) error {
	return coded(c, useUncoded(s, err, f))
}

// useUncoded is use without a CNI error code.
func useUncoded(s *ipam.Store, err error, f func() error) error {
	if err != nil {
		return err
	}
	return errors.Join(f(), s.Close())
}

// coded returns an error of the store with a CNI error code.
func coded(c *ipamconfig.Config, err error) error {
	var dry *dryError
	key := "ipam.dataDir"
	if errors.Is(err, ipam.ErrSticky) {
		key = "ipam.stickyDir"
	}
	switch {
	case err == nil:
		return nil
	case errors.As(err, &dry):
		return plugin.Errorf(types.ErrTryAgainLater, "ipam.pool: %w", err)
	case errors.Is(err, ipam.ErrNoBlock), errors.Is(err, ipam.ErrUnheard):
		return plugin.Errorf(types.ErrTryAgainLater, "ipam.pool: %w", err)
	case errors.Is(err, ipam.ErrExhausted):
		return plugin.Errorf(plugin.CodeExhausted, "%w; delete containers of the network, or widen its range", err)
	case errors.Is(err, ipam.ErrTaken):
		return plugin.Errorf(plugin.CodeTaken, "%s: %w; request another address, or none", c.RequestedBy, err)
	case errors.Is(err, ipam.ErrNotServed):
		return plugin.Errorf(types.ErrInvalidNetworkConfig, "%s: %w; request another address of the ranges, or none", c.RequestedBy, err)
	case errors.Is(err, ipam.ErrShared):
		return plugin.Errorf(types.ErrInvalidNetworkConfig, "ipam.ranges: %w", err)
	case errors.Is(err, flock.ErrTimeout):
		return plugin.Errorf(types.ErrTryAgainLater, "%s: %w", key, err)
	}
	return plugin.Errorf(types.ErrIOFailure, "%s: %w", key, err)
}
