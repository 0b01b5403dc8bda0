package attachment

import (
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// A Part describes the links, addresses and rules that one plugin of the network's list has made
// for an attachment.
type Part interface {
	// Verify compares the Part with the state of the host and of the container, and changes
	// nothing. The two errors describe the differences on the host and in the container. Repair
	// cannot remove differences in the container.
	Verify() (host, container error)
	// Missing returns what Repair would restore, and changes nothing. The list has the names of the
	// network's objects and settings that are missing on the host. The error port describes the
	// differences of the bridge port.
	Missing() (network []string, port, err error)
	// Repair restores what the host has lost since ADD, and returns the names of the restored
	// things. It changes nothing in the container.
	Repair() (restored []string, err error)
	// Close closes the network namespaces that the Part has opened.
	Close()
}

// OpenPart returns the Part of one plugin, or nil if the plugin has made nothing. args are the
// arguments of CHECK for this plugin. The key "type" in the configuration names the plugin:
// bridgeveth, portmap or firewall. The Part uses the parameter host, so the caller must close the
// Part before the host.
func OpenPart(host *setup.Host, args *skel.CmdArgs) (part Part, err error) {
	var conf struct {
		Type string `json:"type"`
	}
	if err := plugin.Read(args.StdinData, &conf, ""); err != nil {
		return nil, err
	}
	switch conf.Type {
	case plugin.PortMap:
		c, err := ReadPortMap(args)
		if err != nil || len(c.HostPorts()) == 0 {
			return nil, err
		}
		return c.Open(host, args)
	case plugin.Firewall:
		c, err := ReadFirewall(args)
		if err != nil {
			return nil, err
		}
		return c.Open(host, args)
	}
	c, err := Read(args)
	if err != nil {
		return nil, err
	}
	return c.Open(host, args)
}

// Attached is an attachment that ADD of bridgeveth has made. It implements Part for bridgeveth.
type Attached struct {
	Host     *setup.Host
	Port     *setup.Port
	Previous *current.Result // prevResult
	shared   bool            // Host belongs to the caller of Open
}

// Open opens an attachment of bridgeveth. args are the arguments of CHECK, which contain the result
// of ADD. If the parameter host is nil, Open uses the network namespace of this process as the
// host, and Attached.Close closes it.
func (c *Config) Open(host *setup.Host, args *skel.CmdArgs) (*Attached, error) {
	a, err := openPrevious(host, &c.PluginConf, plugin.Errorf(types.ErrInvalidNetworkConfig, "prevResult: it is missing; CHECK needs the result of ADD"))
	if err != nil {
		return nil, err
	}
	container, err := containerOf(args, a.Host)
	if err != nil {
		a.Close()
		return nil, Error(err)
	}
	a.Port = c.Port(args, container)
	own := a.Previous
	if link := existingLink(own, a.Port); link != "" {
		useLink(a.Port, link)
	} else {
		own = ownResult(own, args.IfName)
		c.expect(a.Port, own)
	}
	c.AddResult(a.Port, own)
	if err := AddHostPorts(a.Port, c.hostPorts); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

// openPrevious returns an Attached with prevResult, with the host, and without a port. If the
// parameter host is nil, it opens the network namespace of this process. It returns the
// parameter missing if there is no prevResult.
func openPrevious(host *setup.Host, conf *types.PluginConf, missing error) (*Attached, error) {
	previous, err := plugin.Previous(conf)
	if err == nil && previous == nil {
		err = missing
	}
	if err != nil {
		return nil, err
	}
	shared := host != nil
	if !shared {
		if host, err = currentHost(); err != nil {
			return nil, Error(err)
		}
	}
	return &Attached{Host: host, Previous: previous, shared: shared}, nil
}

// Close closes the network namespace of the container, and that of the host if Open has opened it.
func (a *Attached) Close() {
	if !a.shared {
		a.Host.Close()
	}
	if a.Port != nil && a.Port.Container != nil {
		a.Port.Container.Close()
	}
}

// Verify implements Part.
func (a *Attached) Verify() (host, container error) {
	return a.Host.VerifyHost(a.Port), a.Host.VerifyContainer(a.Port)
}

// Missing implements Part.
func (a *Attached) Missing() (network []string, port, err error) {
	network, err = a.Host.Missing(a.Port.Network)
	return network, a.Host.VerifyHostEnd(a.Port), err
}

// Repair implements Part.
func (a *Attached) Repair() (restored []string, err error) { return a.Host.RepairPort(a.Port) }

// openChained opens an attachment for a plugin that comes after bridgeveth in the list. It sets
// only a part of a.Port: the attachment, the bridge, the VLAN and the addresses. The VLAN and the
// addresses are from prevResult. The parameter host may be nil, as for Config.Open.
func openChained(host *setup.Host, conf *types.PluginConf, args *skel.CmdArgs) (*Attached, error) {
	a, err := openPrevious(host, conf, plugin.Errorf(types.ErrInvalidNetworkConfig, `prevResult: it is missing; put %s after an interface plugin in "plugins"`, conf.Type))
	if err != nil {
		return nil, err
	}
	of := Of(conf.Name, args)
	bridge, err := a.Host.BridgeOf(of)
	if err != nil {
		a.Close()
		return nil, Error(err)
	}
	if bridge == "" {
		a.Close()
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig,
			"prevResult: bridgeveth has not made %s, and this %s handles only interfaces of bridgeveth; put the reference plugin %s into the folder reference beside this program",
			args.IfName, conf.Type, conf.Type)
	}
	a.Port = &setup.Port{Attachment: of, Network: &setup.Network{Bridge: bridge}}
	a.addPrevious()
	return a, nil
}

// addPrevious adds the VLAN and the addresses in prevResult to the port and its network.
func (a *Attached) addPrevious() {
	net := a.Port.Network
	// If the container is in a VLAN, prevResult contains a VLAN link on the bridge. The name of
	// this link ends with the number of the VLAN.
	for _, i := range a.Previous.Interfaces {
		if vlan, found := strings.CutPrefix(i.Name, net.Bridge+"."); found && i.Sandbox == "" {
			net.VLANs.Native, _ = strconv.Atoi(vlan) // 0 means no VLAN
		}
	}
	own := ownResult(a.Previous, a.Port.Interface)
	own.Routes = nil
	if len(own.IPs) > 0 {
		addResult(a.Port, own, net.VLANs.Native != 0, false)
	} else { // a result without addresses means a layer 2 network, as in addResult
		net.IPv4, net.IPv6 = true, a.Host.HasIPv6()
	}
}
