package attachment

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// PortMapConfig is a configuration of the plugin portmap. It has the keys of the reference plugin
// portmap and, like it, ignores all other keys.
type PortMapConfig struct {
	types.PluginConf
	Backend       string   `json:"backend"`
	MasqAll       bool     `json:"masqAll"`
	MarkMasqBit   *int     `json:"markMasqBit"`
	SetMarkChain  string   `json:"externalSetMarkChain"`
	ConditionsV4  []string `json:"conditionsV4"`
	ConditionsV6  []string `json:"conditionsV6"`
	RuntimeConfig struct {
		PortMappings []PortMapping `json:"portMappings"`
	} `json:"runtimeConfig"`

	hostPorts []setup.HostPort
}

// ReadPortMap reads the configuration of the plugin portmap and the runtime's arguments. Like Read,
// it always returns a configuration, and an error that names every mistake.
func ReadPortMap(args *skel.CmdArgs) (c *PortMapConfig, wrong error) {
	c, wrong = readPortMap(args)
	return c, ofNetwork(c.Name, wrong)
}

func readPortMap(args *skel.CmdArgs) (c *PortMapConfig, wrong error) {
	c = &PortMapConfig{}
	bad := []error{plugin.Read(args.StdinData, c, "")}
	if c.Name == "" {
		return c, bad[0]
	}
	if !slices.Contains([]string{"", "iptables", "nftables"}, c.Backend) {
		bad = append(bad, fmt.Errorf("backend: %q is none of iptables, nftables; leave it out, the rules are always in nftables", c.Backend))
	}
	if c.MarkMasqBit != nil && (*c.MarkMasqBit < 0 || *c.MarkMasqBit > 31) {
		bad = append(bad, fmt.Errorf("markMasqBit: %d is not between 0 and 31; leave it out, it has no effect", *c.MarkMasqBit))
	}
	if c.MarkMasqBit != nil && c.SetMarkChain != "" {
		bad = append(bad, errors.New("markMasqBit: it is not allowed with externalSetMarkChain; leave out both keys, because neither has an effect"))
	}
	if c.MasqAll {
		bad = append(bad, errors.New("masqAll: it is not supported, because bridgeveth keeps the client's address; leave it out"))
	}
	for key, conditions := range map[string][]string{"conditionsV4": c.ConditionsV4, "conditionsV6": c.ConditionsV6} {
		if len(conditions) > 0 {
			bad = append(bad, fmt.Errorf("%s: %q: it is not supported, because all host ports are entries of one map, which has no place for conditions; set a hostIP, or leave the key out", key, strings.Join(conditions, " ")))
		}
	}
	var err error
	c.hostPorts, err = readHostPorts(c.RuntimeConfig.PortMappings)
	return c, errors.Join(append(bad, err)...)
}

// HostPorts returns the host ports that the runtime asks for.
func (c *PortMapConfig) HostPorts() []setup.HostPort { return c.hostPorts }

// Published is the Part of the plugin portmap. It contains the host ports of an attachment.
type Published struct{ *Attached }

// Open opens the Part of the plugin portmap. args are the arguments of ADD or CHECK. The parameter
// host may be nil, as for Config.Open.
func (c *PortMapConfig) Open(host *setup.Host, args *skel.CmdArgs) (*Published, error) {
	a, err := openChained(host, &c.PluginConf, args)
	if err != nil {
		return nil, err
	}
	// The FORWARD rules of the network belong to other plugins of the list. With these values,
	// pkg/setup does not change them.
	a.Port.Network.IPv4, a.Port.Network.IPv6, a.Port.Network.Forward = false, false, setup.ForwardNone
	if err := AddHostPorts(a.Port, c.hostPorts); err != nil {
		a.Close()
		return nil, err
	}
	return &Published{a}, nil
}

// Verify implements Part.
func (p *Published) Verify() (host, container error) { return p.Host.VerifyPublished(p.Port), nil }

// Missing implements Part.
func (p *Published) Missing() (network []string, port, err error) {
	return nil, p.Host.VerifyPublished(p.Port), nil
}

// Repair implements Part.
func (p *Published) Repair() (restored []string, err error) {
	if p.Host.VerifyPublished(p.Port) == nil {
		return nil, nil
	}
	if err := p.Host.PublishPort(p.Port); err != nil {
		return nil, err
	}
	return []string{"host ports of port " + p.Port.Port()}, nil
}
