package setup

import (
	"errors"
	"path/filepath"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// EnsureNamed returns the namespace that ip-netns(8) knows as name, made when
// absent, with lo up. DeleteNamed is its inverse.
func EnsureNamed(name string) (*Namespace, error) {
	path := filepath.Join(netns.NamedDir, name)
	n, err := netns.Open(path)
	if errors.Is(err, ErrNotNamespace) { // half made by a killed process
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
	rtnl.SetUp(&up, "lo") // with it come 127.0.0.1 and ::1
	if err := n.Send(up); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}
