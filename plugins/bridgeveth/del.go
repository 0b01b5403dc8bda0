package bridgeveth

import (
	"errors"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// del is the verb DEL (CNI specification 1.1.0, "DEL"). It needs only the network's name, the
// container's ID and the interface's name. It needs neither the container's namespace nor the
// result of ADD.
//
// DEL deletes the link and the host ports first. If this fails, the address is still in use, so DEL
// stops and keeps the lease, and the runtime must call DEL again. In all later steps, DEL continues
// after errors. With the IPAM plugin dhcp, DEL releases the lease before it deletes the link,
// because the DHCP client needs the link.
func del(args *skel.CmdArgs) error {
	c, wrong := readConfig(args)
	if wrong != nil && c.Name == "" {
		return wrong
	}
	host, err := setup.CurrentHost()
	if err != nil {
		return attachment.Error(err)
	}
	defer host.Close()
	if err := attachment.RefuseOwn(args, host); err != nil {
		return attachment.Error(err)
	}
	ipam, released := newDelegate(c, args, host)
	usable := released == nil
	if usable && c.UsesDHCP() {
		released = ipam.del()
	}
	bridge, err := host.Unplug(attachment.Of(c.Name, args), c.HostPorts()...)
	if err != nil {
		return attachment.Error(errors.Join(err, released))
	}
	forgotten := c.ForgetConnections(host) // the connections must be deleted before the address is free
	if usable && !c.UsesDHCP() {
		released = ipam.del()
	}
	return attachment.Error(errors.Join(released, forgotten, host.ReleaseNetwork(c.Bridge, bridge)))
}
