package bridgeveth

import (
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Wanted is what a network's configuration wants of the host, for containers with these
// addresses. The gateways are left out: they are the IPAM plugin's to name.
func Wanted(conf []byte, addresses []netip.Prefix) (*setup.Network, error) {
	c, err := readConfig(&skel.CmdArgs{StdinData: conf})
	if err != nil {
		return nil, err
	}
	c.IsGateway = false
	result := &current.Result{}
	for _, a := range addresses {
		result.IPs = append(result.IPs, &current.IPConfig{Address: net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}})
	}
	port := &setup.Port{Network: c.network()}
	if len(addresses) > 0 {
		c.fill(port, result)
	}
	return port.Network, nil
}
