package attachment

import (
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Address is an address of a container, with the gateway that the IPAM plugin has returned for it.
type Address struct {
	netip.Prefix
	Gateway netip.Addr // the zero Addr means none
}

// NetworkOf returns the plan of a network. conf is its configuration, and addresses are the
// addresses of its containers. NetworkOf needs no result of ADD.
func NetworkOf(conf []byte, addresses []Address) (*setup.Network, error) {
	c, err := Read(&skel.CmdArgs{StdinData: conf})
	if err != nil {
		return nil, err
	}
	port := &setup.Port{Network: c.network()}
	if len(addresses) == 0 {
		return port.Network, nil
	}
	result := resultOf(addresses)
	if err := c.CompleteResult(result); err != nil {
		return nil, err
	}
	c.AddResult(port, result)
	return port.Network, nil
}
