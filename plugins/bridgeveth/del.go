package bridgeveth

import (
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// del is the verb DEL (CNI specification 1.1.0, "DEL"). All that it needs is the
// attachment's name: neither its namespace nor what ADD returned.
//
// The link goes first, with its host ports. Should that fail, all else stays for the next
// DEL: its address is still in use, or a host port leads to it. Otherwise each of the other
// things goes, whatever becomes of the rest. A lease that was had by the link is given back before, by
// the link.
func del(args *skel.CmdArgs) error {
	c, wrong := readConfig(args)
	if wrong != nil && c.Name == "" {
		return wrong
	}
	host, err := setup.CurrentHost()
	if err != nil {
		return Error(err)
	}
	defer host.Close()
	if err := refuseOwn(args, host); err != nil {
		return Error(err)
	}
	ipam, released := newDelegate(c, args, host)
	usable := released == nil
	if usable && c.asksByInterface() {
		released = ipam.del()
	}
	on, err := host.Unplug(c.attachment(args), c.hostPorts...)
	if err != nil {
		return Error(errors.Join(err, released))
	}
	if usable && !c.asksByInterface() {
		released = ipam.del()
	}
	return Error(errors.Join(released, host.ReleaseNetwork(c.Bridge, on)))
}

// refuseOwn refuses a container that would be its own host. One whose namespace
// is gone is none.
func refuseOwn(args *skel.CmdArgs, host *setup.Host) error {
	container, err := setup.OpenNamespace(args.Netns)
	if err != nil {
		return nil //nolint:nilerr // gone, or a file that a lost mount left: there is nothing in it to mind
	}
	defer container.Close()
	if container.Same(host.Namespace) && !ownMeant(args) {
		return fmt.Errorf("CNI_NETNS: open %s: %w", args.Netns, errOwnNamespace)
	}
	return nil
}
