package bridgeveth

import (
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// status is the verb STATUS (CNI specification 1.1.0, "STATUS"): an error says
// why an ADD could not be served now. It changes nothing.
func status(args *skel.CmdArgs) error {
	c, err := readConfig(args)
	if err != nil {
		return err
	}
	host, err := setup.CurrentNamespace()
	if err != nil {
		return Error(err)
	}
	defer host.Close()
	ipam, err := newDelegate(c, args, host)
	if err != nil {
		return err
	}
	if err := ipam.status(); err != nil {
		return err
	}
	network := c.network()
	network.IPv4 = true // which families there will be is the IPAM plugin's to say
	err = host.CheckNetwork(network)
	if err != nil && !errors.Is(err, setup.ErrBridgeFull) {
		err = plugin.Errorf(types.ErrPluginNotAvailable, "network %s: %w", c.Name, err)
	}
	if err == nil && c.IsGateway && c.forward != setup.ForwardNone {
		if err = host.CheckDenied(unix.AF_INET); err != nil {
			err = fmt.Errorf("network %s: %w", c.Name, err)
		}
	}
	return Error(err)
}
