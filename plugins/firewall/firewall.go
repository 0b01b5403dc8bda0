package firewall

import (
	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// Verbs returns the plugin's verbs for the package skel, which calls them. DEL and GC do nothing.
// When the last container of the network is deleted, bridgeveth also deletes the rules that the
// plugin firewall has added.
func Verbs() skel.CNIFuncs {
	nothing := func(*skel.CmdArgs) error { return nil }
	return skel.CNIFuncs{Add: add, Del: nothing, Check: check, GC: nothing, Status: status}
}

// add is the verb ADD. It adds the missing rules and prints prevResult unchanged.
func add(args *skel.CmdArgs) error {
	c, err := attachment.ReadFirewall(args)
	if err != nil {
		return err
	}
	f, err := c.Open(nil, args)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Repair(); err != nil {
		return attachment.Error(err)
	}
	return plugin.PrintResult(f.Previous, c.CNIVersion)
}

// check is the verb CHECK. It compares the rules with the configuration and changes nothing.
func check(args *skel.CmdArgs) error {
	c, err := attachment.ReadFirewall(args)
	if err != nil {
		return err
	}
	f, err := c.Open(nil, args)
	if err != nil {
		return err
	}
	defer f.Close()
	if err, _ := f.Verify(); err != nil {
		return plugin.Errorf(plugin.CodeDrift, "CHECK of filters for container %s: %w", args.ContainerID, err)
	}
	return nil
}

// status is the verb STATUS. It returns an error if ADD would refuse the configuration.
func status(args *skel.CmdArgs) error {
	_, err := attachment.ReadFirewall(args)
	return err
}
