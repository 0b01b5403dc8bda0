package bridgeveth

import (
	"slices"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// AttachmentOf is the one that a verb is about, on a network.
func AttachmentOf(network string, args *skel.CmdArgs) setup.Attachment {
	return setup.Attachment{Network: network, Container: args.ContainerID, Interface: args.IfName}
}

// Behind is what a plugin that comes behind ours in a chain has to know.
type Behind struct {
	Host     *setup.Host
	Port     *setup.Port // as ours has made it, with nothing that the other plugin adds
	Previous *current.Result
}

// OpenBehind reads the arguments of ADD or CHECK of a plugin behind ours. The caller closes
// Host.
func OpenBehind(conf *types.PluginConf, args *skel.CmdArgs) (b *Behind, err error) {
	previous, err := plugin.Previous(conf)
	if err != nil {
		return nil, err
	}
	if previous == nil {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig, `prevResult: it is missing; put %s behind bridge in "plugins"`, conf.Type)
	}
	host, err := setup.CurrentHost()
	if err != nil {
		return nil, Error(err)
	}
	defer func() {
		if err != nil {
			host.Close()
		}
	}()
	a := AttachmentOf(conf.Name, args)
	bridge, err := host.BridgeOf(a)
	if err != nil {
		return nil, Error(err)
	}
	if bridge == "" {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig,
			"prevResult: %s is no interface of ours, and %s is only for those; put the reference's %s into the folder reference beside this program",
			args.IfName, conf.Type, conf.Type)
	}
	b = &Behind{Host: host, Port: &setup.Port{Attachment: a, Network: &setup.Network{Bridge: bridge}}, Previous: previous}
	b.fill()
	return b, nil
}

// fill takes from the result where the port is.
func (b *Behind) fill() {
	net := b.Port.Network
	for _, i := range b.Previous.Interfaces { // routed by a VLAN link, if there is one
		if vlan, found := strings.CutPrefix(i.Name, net.Bridge+"."); found && i.Sandbox == "" {
			net.VLANs.Native, _ = strconv.Atoi(vlan) // 0 is none
		}
	}
	own := *b.Previous
	own.IPs = slices.Clone(own.IPs)
	keepOwn(&own, b.Port.Interface)
	c := &config{IsGateway: net.VLANs.Native != 0}
	own.Routes = nil
	if len(own.IPs) > 0 {
		c.fill(b.Port, &own)
	} else { // layer 2 only, as for the plugin before
		net.IPv4, net.IPv6 = true, b.Host.HasIPv6()
	}
}
