package harness

import (
	"errors"
	"os"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
)

// Leases returns the leases of a network from ipam-simple's default folder.
func Leases(network string) ([]ipam.Lease, error) {
	const dir = "/run/ipam-simple"
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	s, err := ipam.Open(dir, time.Second)
	if err != nil {
		return nil, err
	}
	leases, err := s.Leases(network)
	return leases, errors.Join(err, s.Close())
}
