package main

import (
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
		return cniError(err)
	}
	defer host.Close()
	ipam, err := newDelegate(c, args, host)
	if err != nil {
		return err
	}
	if err := ipam.status(); err != nil {
		return err
	}
	if err := host.CheckBridge(c.Bridge); err != nil {
		return cniError(err)
	}
	if c.forward == setup.ForwardIPTables {
		if err := host.CheckForward(c.Bridge, unix.AF_INET); err != nil {
			return plugin.Errorf(types.ErrPluginNotAvailable, "forward: %w", err)
		}
	}
	return nil
}
