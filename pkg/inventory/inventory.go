package inventory

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/cnicache"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// lockWait is the longest time to wait for the lock on the lease store.
const lockWait = 10 * time.Second

// Inventory contains the folders of the data on the host.
type Inventory struct {
	ConfDir  string      // folder of the network configurations
	DataDir  string      // folder of the lease store; "" means the default folder and the folders in the configurations
	CacheDir string      // folder of libcni's records
	Warn     func(error) // called with each error about a file that cannot be read
}

// New returns an Inventory with the default folders.
func New(warn func(error)) *Inventory {
	return &Inventory{ConfDir: "/etc/cni/net.d", CacheDir: cnicache.DefaultDir, Warn: warn}
}

// Stores calls f with each lease store that exists. If DataDir is set, Stores opens only the store
// in DataDir. Otherwise it opens the store in the default folder and the stores in the networks'
// folders. If f returns an error, Stores continues with the next store.
func (inv *Inventory) Stores(networks []Network, f func(*ipam.Store) error) error {
	dirs := []string{inv.DataDir}
	if inv.DataDir == "" {
		dirs[0] = ipam.DefaultDir
		for _, n := range networks {
			if dir := n.IPAM.DataDir; n.usesIPAM() && dir != "" && !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	var errs []error
	for _, dir := range dirs {
		s, err := ipam.OpenExisting(dir, lockWait)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = errors.Join(f(s), s.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// EachLease calls f with each lease of the containers whose ID begins with the parameter container.
// If the parameter network is not "", it skips the leases of other networks.
func EachLease(s *ipam.Store, network, container string, f func(ipam.Lease)) error {
	names, err := s.Networks()
	if err != nil {
		return err
	}
	for _, name := range names {
		if network != "" && network != name {
			continue
		}
		leases, err := s.Leases(name)
		if err != nil {
			return err
		}
		for _, l := range leases {
			if strings.HasPrefix(l.Container, container) {
				f(l)
			}
		}
	}
	return nil
}

// LeasedTo returns the attachment that a lease belongs to.
func LeasedTo(l ipam.Lease) setup.Attachment {
	return setup.Attachment{Network: l.Network, Container: l.Container, Interface: l.Interface}
}
