package setup

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// End is one end of the veth pair that Join makes.
type End struct {
	Namespace *Namespace
	Interface string
	Addresses []netip.Prefix
}

// Join connects two namespaces by a veth pair, sets both ends up, and returns when the pair passes
// packets. If the pair exists already, Join adds only missing addresses. To undo Join, delete
// either end.
func Join(a, b End) error {
	pair := rtnl.Veth{Name: a.Interface, Peer: b.Interface, MAC: rtnl.RandomMAC(), PeerMAC: rtnl.RandomMAC(), PeerNamespace: b.Namespace}
	var make netns.Batch
	make.Add(fmt.Sprintf("create veth pair %s, %s", a.Interface, b.Interface), pair.Request())
	if err := a.Namespace.Send(make); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	ends := []End{a, b}
	for _, e := range ends {
		if err := rtnl.Configure(e.Namespace, e.Interface, rtnl.EndConfig{Addresses: e.Addresses}); err != nil {
			return err
		}
	}
	for _, e := range ends {
		if err := awaitRunning(e.Namespace, e.Interface); err != nil {
			return err
		}
	}
	return nil
}
