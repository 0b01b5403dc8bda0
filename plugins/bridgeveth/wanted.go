package bridgeveth

import (
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Address is one of a container's, as its IPAM plugin gave it.
type Address struct {
	netip.Prefix
	Gateway netip.Addr // none when zero
}

// Wanted is what a network's configuration wants of the host, for containers with these
// addresses.
func Wanted(conf []byte, addresses []Address) (*setup.Network, error) {
	c, err := readConfig(&skel.CmdArgs{StdinData: conf})
	if err != nil {
		return nil, err
	}
	port := &setup.Port{Network: c.network()}
	if len(addresses) == 0 {
		return port.Network, nil
	}
	result := &current.Result{}
	for _, a := range addresses {
		result.IPs = append(result.IPs, &current.IPConfig{Address: plugin.IPNet(a.Prefix), Gateway: a.Gateway.AsSlice()})
	}
	if err := c.complete(result); err != nil {
		return nil, err
	}
	c.fill(port, result)
	return port.Network, nil
}
