package portmap

import (
	"errors"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Verbs returns the plugin's verbs for the package skel, which calls them.
func Verbs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: add, Del: del, Check: check, GC: gc, Status: status}
}

// add is the verb ADD. It publishes the host ports and prints prevResult unchanged.
func add(args *skel.CmdArgs) error {
	c, err := attachment.ReadPortMap(args)
	if err != nil {
		return err
	}
	if len(c.HostPorts()) == 0 {
		return plugin.PassOn(&c.PluginConf)
	}
	p, err := c.Open(nil, args)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Host.PublishPort(p.Port); err != nil {
		return attachment.Error(err)
	}
	if err := plugin.PrintResult(p.Previous, c.CNIVersion); err != nil {
		return attachment.Error(errors.Join(err, p.Host.UnpublishPort(p.Port.Attachment, c.HostPorts()...)))
	}
	return nil
}

// del is the verb DEL. It needs neither the container's namespace nor prevResult. If the
// configuration has mistakes, del still works, as long as the network's name can be read.
func del(args *skel.CmdArgs) error {
	c, wrong := attachment.ReadPortMap(args)
	if wrong != nil && c.Name == "" {
		return wrong
	}
	host, err := setup.CurrentHost()
	if err != nil {
		return attachment.Error(err)
	}
	defer host.Close()
	return attachment.Error(host.UnpublishPort(attachment.Of(c.Name, args), c.HostPorts()...))
}

// check is the verb CHECK. It compares the host ports with the configuration and changes nothing.
func check(args *skel.CmdArgs) error {
	c, err := attachment.ReadPortMap(args)
	if err != nil || len(c.HostPorts()) == 0 {
		return err
	}
	p, err := c.Open(nil, args)
	if err != nil {
		return err
	}
	defer p.Close()
	if err, _ := p.Verify(); err != nil {
		return plugin.Errorf(plugin.CodeDrift, "CHECK of host ports of container %s: %w", args.ContainerID, err)
	}
	return nil
}

// gc is the verb GC. It deletes the host ports of the network's attachments that are not in the
// list of valid attachments.
func gc(args *skel.CmdArgs) error {
	c, wrong := attachment.ReadPortMap(args)
	if wrong != nil && c.Name == "" {
		return wrong
	}
	valid, err := attachment.Valid(c.Name, args)
	if err != nil {
		return err
	}
	host, err := setup.CurrentHost()
	if err != nil {
		return attachment.Error(err)
	}
	defer host.Close()
	return attachment.Error(host.CollectPublished(c.Name, valid))
}

// status is the verb STATUS. It returns an error if ADD would refuse the configuration.
func status(args *skel.CmdArgs) error {
	_, err := attachment.ReadPortMap(args)
	return err
}
