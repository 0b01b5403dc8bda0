package bridgeveth

import (
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// status is the verb STATUS (CNI specification 1.1.0, "STATUS"). It succeeds if an ADD would
// succeed and the container's packets would be forwarded. It runs the checks of ADD with the
// subnets and gateways that ADD would get. Rules and settings that ADD itself restores may be
// missing: some runtimes call ADD only after STATUS has succeeded. status changes nothing.
func status(args *skel.CmdArgs) error {
	c, err := readConfig(args)
	if err != nil {
		return err
	}
	host, err := setup.CurrentHost()
	if err != nil {
		return attachment.Error(err)
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
	if err := c.ResolveMTU(host); err != nil {
		return attachment.Error(err)
	}
	port := c.Port(args, host.Namespace) // host.Namespace stands for a container's namespace, which does not exist yet; both have the same kernel
	if result != nil {
		if err := c.CompleteResult(result); err != nil {
			return err
		}
		c.AddResult(port, result)
	}
	if err := checkHost(host, port.Network, c.IsGateway); err != nil {
		return attachment.Error(fmt.Errorf("network %s: %w", c.Name, err))
	}
	if port.Network.FastPath == setup.FastPathAuto {
		if err := host.CheckFastPath(); err != nil {
			fmt.Fprintf(os.Stderr, "bridgeveth: network %s: fastPath: %v; packets go without the fast path\n", c.Name, err)
		}
	}
	return nil
}

// checkHost returns an error if ADD could not attach a port to the network, or if a chain would
// drop the port's packets. A full bridge is no error.
func checkHost(host *setup.Host, network *setup.Network, isGateway bool) error {
	err := host.CheckNetwork(network)
	if err != nil && !errors.Is(err, setup.ErrBridgeFull) {
		return plugin.Errorf(types.ErrPluginNotAvailable, "%w", err)
	}
	if err == nil && isGateway && network.Forward != setup.ForwardNone {
		err = host.CheckDenied(network)
	}
	return err
}
