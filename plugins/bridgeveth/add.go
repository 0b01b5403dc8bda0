package bridgeveth

import (
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// add is the verb ADD (CNI specification 1.1.0, "ADD"). It makes all possible checks before it
// changes anything. If a step fails, add undoes the earlier steps.
func add(args *skel.CmdArgs) error {
	c, err := readConfig(args)
	if err != nil {
		return err
	}
	if err := attachment.CheckNames(args); err != nil {
		return err
	}
	host, container, err := attachment.Namespaces(args)
	if err != nil {
		return attachment.Error(err)
	}
	defer host.Close()
	defer container.Close()
	port, previous, err := plan(c, args, host, container)
	if err != nil {
		return attachment.Error(err)
	}
	ipam, err := newDelegate(c, args, host)
	if err != nil {
		return err
	}
	return attach(c, host, port, previous, ipam)
}

// plan returns the port to attach, without its addresses. previous is the result of the plugin that
// comes before bridgeveth in the plugin list, or nil. plan returns an error if the port cannot be
// attached.
func plan(c *attachment.Config, args *skel.CmdArgs, host *setup.Host, container *setup.Namespace) (port *setup.Port, previous *current.Result, err error) {
	if err := c.ResolveMTU(host); err != nil {
		return nil, nil, err
	}
	port = c.Port(args, container)
	previous, err = plugin.Previous(&c.PluginConf)
	if err == nil && previous != nil {
		err = c.UseExistingLink(port, previous, args)
	}
	if err == nil {
		err = host.CheckAttachable(port)
	}
	return port, previous, err
}

// attach reserves the addresses, attaches the port and prints the result. If the IPAM plugin uses
// DHCP, it attaches the port before it reserves the addresses.
func attach(c *attachment.Config, host *setup.Host, port *setup.Port, previous *current.Result, ipam *delegate) (err error) {
	var undo setup.Undo
	defer func() {
		if err != nil {
			err = attachment.Error(errors.Join(err, undo.Run()))
		}
	}()

	var plugged *setup.Plugged
	connect := func() (err error) {
		if plugged, err = host.AttachPort(port); err == nil {
			undo.Push("attachment", func() error { return host.DetachPort(port.Attachment, c.Bridge, c.HostPorts()...) })
		}
		return err
	}
	if c.UsesDHCP() {
		c.AddResult(port, &current.Result{})
		if err := connect(); err != nil {
			return err
		}
		port.MAC = plugged.ContainerMAC
	}
	result, err := ipam.add()
	if !ipam.refused(err) { // an IPAM plugin whose ADD has failed may have reserved addresses before the failure
		undo.Push("reservation of addresses", ipam.del)
	}
	if err != nil {
		return err
	}
	if previous != nil {
		result = attachment.MergeResults(previous, result)
	}
	if err := c.CompleteResult(result); err != nil {
		return err
	}
	c.AddResult(port, result)
	if err = attachment.AddHostPorts(port, c.HostPorts()); err != nil {
		return err
	}
	if plugged == nil {
		err = connect()
	} else {
		err = host.AddAddresses(port)
	}
	if err != nil {
		return err
	}
	warn(c.Name, port)
	addInterfaces(result, port, plugged)
	return plugin.PrintResult(result, c.CNIVersion)
}

// warn prints a warning if the network has "forward": "sysctl", because this setting affects every
// bridge of the host.
func warn(network string, p *setup.Port) {
	if p.Network.Forward == setup.ForwardSysctl {
		fmt.Fprintf(os.Stderr, `bridgeveth: network %s: "forward": "sysctl" keeps the bridged packets of every bridge on this host out of iptables; `+
			"Docker's isolation of containers and Kubernetes Services on this node may not work without them\n", network)
	}
}

// addInterfaces adds the bridge, the bridge port, the container's interface and the VLAN link to
// the result.
func addInterfaces(r *current.Result, p *setup.Port, done *setup.Plugged) {
	r.CNIVersion = current.ImplementedSpecVersion
	bridge := &current.Interface{Name: p.Network.Bridge, Mac: done.BridgeMAC.String(), Mtu: done.BridgeMTU}
	if p.ExistingLink != "" { // the result of the previous plugin has the interfaces of the container
		r.Interfaces = append(r.Interfaces, bridge)
	} else {
		r.Interfaces = []*current.Interface{
			bridge,
			{Name: p.Port(), Mac: done.PortMAC.String(), Mtu: done.MTU},
			{Name: p.Interface, Mac: done.ContainerMAC.String(), Mtu: done.MTU, Sandbox: p.Container.Path},
		}
		for _, ip := range r.IPs {
			ip.Interface = current.Int(len(r.Interfaces) - 1)
		}
	}
	if routed := p.Network.RoutedBy(); routed != p.Network.Bridge { // a VLAN link has the MAC and the MTU of its bridge
		r.Interfaces = append(r.Interfaces, &current.Interface{Name: routed, Mac: done.BridgeMAC.String(), Mtu: done.BridgeMTU})
	}
}
