package main

import (
	"errors"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// check is the verb CHECK (CNI specification 1.1.0, "CHECK"): everything that ADD
// has made is compared with prevResult, and nothing is changed. The error has
// code CodeDrift and names all that is wrong.
func check(args *skel.CmdArgs) error {
	c, err := readConfig(args)
	if err != nil {
		return err
	}
	previous, err := c.previous(args)
	if err != nil {
		return err
	}
	host, container, err := namespaces(args)
	if err != nil {
		return err
	}
	defer host.Close()
	defer container.Close()
	ipam, err := newDelegate(c, args, host)
	if err != nil {
		return err
	}
	if c.autoMTU { // that of the uplink when it was attached
		for _, i := range previous.Interfaces {
			if i.Name == args.IfName && i.Sandbox != "" {
				c.mtu = i.Mtu
			}
		}
	}
	port := c.port(args, container)
	c.fill(port, previous)
	if err := c.publish(port); err != nil {
		return err
	}
	if err := errors.Join(ipam.check(), host.VerifyPort(port)); err != nil {
		return plugin.Errorf(plugin.CodeDrift, "CHECK of %s in container %s: %w", args.IfName, args.ContainerID, err)
	}
	return nil
}

// previous reads prevResult and leaves the addresses of our interface in it:
// plugins before or after us may have added others.
func (c *config) previous(args *skel.CmdArgs) (*current.Result, error) {
	err := version.ParsePrevResult(&c.PluginConf)
	if err == nil && c.PrevResult == nil {
		err = errors.New("it is missing; CHECK needs what ADD returned")
	}
	var result *current.Result
	if err == nil {
		result, err = current.NewResultFromResult(c.PrevResult)
	}
	if err != nil {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig, "prevResult: %w", err)
	}
	var ours []*current.IPConfig
	for _, ip := range result.IPs {
		if i := ip.Interface; i == nil || *i < len(result.Interfaces) && result.Interfaces[*i].Name == args.IfName {
			ours = append(ours, ip)
		}
	}
	result.IPs = ours
	return result, nil
}
