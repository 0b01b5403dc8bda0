package attachment

import (
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/cnicache"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// KnownFrom returns a function for setup.Host.Known. The function reads libcni's records in a
// folder. It ignores records that it cannot read: bvctl repair reports them, and the ADD of another
// container must not fail because of them.
func KnownFrom(cacheDir string) func() ([]*setup.Port, error) {
	return func() (ports []*setup.Port, err error) {
		records, _, err := cnicache.Read(cacheDir, "")
		for _, r := range records {
			of := setup.Attachment{Network: r.Network, Container: r.Container, Interface: r.Interface}
			calls, _ := r.Calls(of.Port())
			for _, call := range calls {
				if p := published(call); p != nil {
					ports = append(ports, p)
				}
			}
		}
		return ports, err
	}
}

// published returns the attachment, the addresses and the host ports in the arguments of CHECK. It
// returns nil if the plugin has published no host port.
func published(args *skel.CmdArgs) *setup.Port {
	var conf struct {
		types.PluginConf
		RuntimeConfig struct {
			PortMappings []PortMapping `json:"portMappings"`
		} `json:"runtimeConfig"`
	}
	if plugin.Read(args.StdinData, &conf, "") != nil || conf.Type == plugin.Firewall {
		return nil
	}
	hostPorts, err := readHostPorts(conf.RuntimeConfig.PortMappings)
	previous, wrong := plugin.Previous(&conf.PluginConf)
	if err != nil || wrong != nil || previous == nil || len(hostPorts) == 0 {
		return nil
	}
	p := &setup.Port{Attachment: Of(conf.Name, args), HostPorts: hostPorts}
	veth := slices.ContainsFunc(previous.Interfaces, func(i *current.Interface) bool { return i.Name == p.Port() })
	if veth || conf.Type == plugin.PortMap { // an existing link has all addresses of the result, as in Config.Open
		previous = ownResult(previous, args.IfName)
	}
	for _, ip := range previous.IPs {
		p.Addresses = append(p.Addresses, plugin.Prefix(ip.Address))
	}
	return p
}

// currentHost returns the network namespace of this process as the host. The host knows the
// attachments in libcni's records.
func currentHost() (*setup.Host, error) {
	host, err := setup.CurrentHost()
	if err == nil {
		host.Known = KnownFrom(cnicache.DefaultDir)
	}
	return host, err
}
