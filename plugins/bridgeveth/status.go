package bridgeveth

import (
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// status is the verb STATUS (CNI specification 1.1.0, "STATUS"). It succeeds if an ADD would,
// and if the packets of the container would be forwarded. A runtime that waits for STATUS
// calls no ADD before, so what ADD itself puts right must not be an error here: STATUS goes
// the way of ADD, with the subnets and gateways that ADD would get. It changes nothing.
func status(args *skel.CmdArgs) error {
	c, err := readConfig(args)
	if err != nil {
		return err
	}
	host, err := setup.CurrentHost()
	if err != nil {
		return Error(err)
	}
	defer host.Close()
	ipam, err := newDelegate(c, args, host)
	if err != nil {
		return err
	}
	result, err := ipam.status()
	if err != nil {
		return err
	}
	if err := c.resolveMTU(host); err != nil {
		return Error(err)
	}
	port := c.port(args, host.Namespace) // a container has the same kernel
	if result != nil {
		if err := c.complete(result); err != nil {
			return err
		}
		c.fill(port, result)
	}
	if err := c.checkHost(host, port.Network); err != nil {
		return Error(fmt.Errorf("network %s: %w", c.Name, err))
	}
	return nil
}

// checkHost says why the host would not take a port of the network, or would drop its packets.
func (c *config) checkHost(host *setup.Host, network *setup.Network) error {
	err := host.CheckNetwork(network)
	if err != nil && !errors.Is(err, setup.ErrBridgeFull) {
		return plugin.Errorf(types.ErrPluginNotAvailable, "%w", err)
	}
	if err == nil && c.IsGateway && c.forward != setup.ForwardNone {
		err = host.CheckDenied(network)
	}
	return err
}
