package setup

import (
	"errors"
	"path/filepath"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// Dump calls list, which lists objects of the kernel by the library github.com/vishvananda/netlink. If
// the objects change during the listing, Dump calls list again. The error is ErrChanging if this happens
// too often.
func Dump[T any](list func() ([]T, error)) ([]T, error) { return netns.Dump(list) }

// EnsureNamed returns the network namespace with this name, and sets its lo up. If the namespace
// does not exist, EnsureNamed creates it as "ip netns add" does. DeleteNamed is the inverse.
func EnsureNamed(name string) (*Namespace, error) {
	path := filepath.Join(netns.NamedDir, name)
	n, err := netns.Open(path)
	if errors.Is(err, ErrNotNamespace) { // a killed process has created the file but has not mounted the namespace there
		if err := netns.DeleteNamed(name); err != nil {
			return nil, err
		}
	}
	if err != nil {
		if err := netns.CreateNamed(name); err != nil {
			return nil, err
		}
		if n, err = netns.Open(path); err != nil {
			return nil, err
		}
	}
	var up netns.Batch
	rtnl.SetUp(&up, "lo") // the kernel then adds 127.0.0.1 and ::1
	if err := n.Send(up); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}
