package bridgeveth

import (
	"cmp"
	"errors"
	"net"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// check is the verb CHECK (CNI specification 1.1.0, "CHECK"): everything that ADD
// has made is compared with prevResult, and nothing is changed. The error has
// code CodeDrift and names all that is wrong.
func check(args *skel.CmdArgs) error {
	a, err := openAttached(args)
	if err != nil {
		return err
	}
	defer a.close()
	ipam, err := newDelegate(a.config, args, a.host)
	if err != nil {
		return err
	}
	if err := errors.Join(ipam.check(), a.host.VerifyPort(a.port)); err != nil {
		return plugin.Errorf(plugin.CodeDrift, "CHECK of %s in container %s: %w", args.IfName, args.ContainerID, err)
	}
	return nil
}

// Verify is CHECK without the IPAM plugin, told apart: what is not as ADD has left it on
// the host, which Repair puts back, and inside of the container.
func Verify(args *skel.CmdArgs) (host, inside error) {
	a, err := openAttached(args)
	if err != nil {
		return err, nil
	}
	defer a.close()
	return a.host.VerifyHost(a.port), a.host.VerifyContainer(a.port)
}

// Lost tells what Repair would put back: what the network lacks, and what is wrong with the
// port.
func Lost(args *skel.CmdArgs) (network []string, port, err error) {
	a, err := openAttached(args)
	if err != nil {
		return nil, nil, err
	}
	defer a.close()
	network, err = a.host.Missing(a.port.Network)
	return network, a.host.VerifyHostEnd(a.port), err
}

// Repair puts back what an attachment has lost on the host since ADD, by the arguments of
// CHECK, and says what that was.
func Repair(args *skel.CmdArgs) (mended []string, err error) {
	a, err := openAttached(args)
	if err != nil {
		return nil, err
	}
	defer a.close()
	return a.host.RepairPort(a.port)
}

// attached is what ADD has made, by its configuration and its result.
type attached struct {
	*config
	host *setup.Host
	port *setup.Port
}

// openAttached reads the arguments of CHECK.
func openAttached(args *skel.CmdArgs) (a *attached, err error) {
	c, err := readConfig(args)
	if err != nil {
		return nil, err
	}
	previous, err := plugin.Previous(&c.PluginConf)
	if err != nil {
		return nil, err
	}
	if previous == nil {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig, "prevResult: it is missing; CHECK needs what ADD returned")
	}
	host, container, err := Namespaces(args)
	if err != nil {
		return nil, Error(err)
	}
	a = &attached{config: c, host: host, port: c.port(args, container)}
	if a.port.ExistingLink = existingLink(previous, a.port); a.port.ExistingLink == "" {
		keepOwn(previous, args.IfName)
		c.expect(a.port, previous)
	}
	c.fill(a.port, previous)
	if err := Publish(a.port, c.hostPorts); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *attached) close() {
	a.host.Close()
	a.port.Container.Close()
}

// expect has the port look as a result says: its MTU may have been that of the uplink, or
// of the bridge at the time, and plugins behind ours, such as tuning, change the MAC of the
// container's end.
func (c *config) expect(p *setup.Port, r *current.Result) {
	for _, i := range r.Interfaces {
		switch mac, err := net.ParseMAC(i.Mac); {
		case i.Name == p.Port():
			p.MTU = cmp.Or(i.Mtu, c.mtu, setup.AnyMTU) // not told before CNI 1.1.0
		case i.Name == p.Interface && i.Sandbox != "" && err == nil:
			p.MAC = mac
		}
	}
}

// keepOwn leaves the addresses of our interface in a result: plugins before or after us
// may have added others.
func keepOwn(r *current.Result, ifname string) {
	r.IPs = slices.DeleteFunc(r.IPs, func(ip *current.IPConfig) bool {
		i := ip.Interface
		return i != nil && (*i < 0 || *i >= len(r.Interfaces) || r.Interfaces[*i].Name != ifname)
	})
}
