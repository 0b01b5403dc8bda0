package loopback

import (
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Verbs returns the plugin's verbs for the package skel, which calls them. GC does nothing, and
// STATUS always succeeds.
func Verbs() skel.CNIFuncs {
	nothing := func(*skel.CmdArgs) error { return nil }
	return skel.CNIFuncs{Add: add, Del: del, Check: check, GC: nothing, Status: nothing}
}

// add is the verb ADD. It ignores CNI_IFNAME, because the loopback interface of a namespace is always
// lo.
func add(args *skel.CmdArgs) error {
	var conf types.PluginConf
	if err := plugin.Read(args.StdinData, &conf, ""); err != nil {
		return err
	}
	previous, err := plugin.Previous(&conf)
	if err != nil {
		return err
	}
	result := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{{Name: "lo", Mac: "00:00:00:00:00:00", Sandbox: args.Netns}},
	}
	err = inside(args, func(_ *setup.Host, container *setup.Namespace) error {
		addresses, err := setup.RaiseLoopback(container)
		has := map[bool]bool{} // the key reports whether the address is IPv4
		for _, a := range addresses {
			if !a.Addr().IsLoopback() {
				return fmt.Errorf("lo has the address %s, which is not a loopback address", a.Addr())
			}
			if is4 := a.Addr().Is4(); !has[is4] {
				has[is4] = true
				result.IPs = append(result.IPs, &current.IPConfig{
					Interface: current.Int(0), Address: plugin.IPNet(a),
				})
			}
		}
		return err
	})
	if err != nil {
		return attachment.Error(err)
	}
	if previous != nil {
		result = previous
	}
	return plugin.PrintResult(result, conf.CNIVersion)
}

// del is the verb DEL. A namespace that does not exist any more is no error.
func del(args *skel.CmdArgs) error {
	err := inside(args, func(host *setup.Host, container *setup.Namespace) error {
		if container.Same(host.Namespace) {
			return nil // CNI_NETNS_OVERRIDE allows the host's namespace, but the host needs its own lo
		}
		return setup.LowerLoopback(container)
	})
	if args.Netns == "" || errors.Is(err, setup.ErrNoNamespace) || errors.Is(err, setup.ErrNotNamespace) {
		return nil
	}
	return attachment.Error(err)
}

// check is the verb CHECK. It checks that lo is up, and changes nothing.
func check(args *skel.CmdArgs) error {
	if err := inside(args, func(_ *setup.Host, container *setup.Namespace) error { return setup.VerifyLoopback(container) }); err != nil {
		return plugin.Errorf(plugin.CodeDrift, "CHECK of lo in container %s: %w", args.ContainerID, err)
	}
	return nil
}

// inside opens the namespaces of the host and of the container, and calls f with them.
func inside(args *skel.CmdArgs, f func(host *setup.Host, container *setup.Namespace) error) error {
	host, container, err := attachment.Namespaces(args)
	if err != nil {
		return err
	}
	defer host.Close()
	defer container.Close()
	return f(host, container)
}
