package attachment

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// FirewallConfig is a configuration of the plugin firewall. It has the keys of the reference
// plugin firewall and, like it, ignores all other keys.
type FirewallConfig struct {
	types.PluginConf
	Backend       string `json:"backend"`
	AdminChain    string `json:"iptablesAdminChainName"`
	Zone          string `json:"firewalldZone"`
	IngressPolicy string `json:"ingressPolicy"`

	forward setup.Forward
	ingress setup.Ingress
}

// ReadFirewall reads the configuration of the plugin firewall and the runtime's arguments. Like
// Read, it returns a configuration even if there are mistakes. The error names all of them.
func ReadFirewall(args *skel.CmdArgs) (c *FirewallConfig, wrong error) {
	c, wrong = readFirewall(args)
	return c, ofNetwork(c.Name, wrong)
}

func readFirewall(args *skel.CmdArgs) (c *FirewallConfig, wrong error) {
	c = &FirewallConfig{}
	bad := []error{plugin.Read(args.StdinData, c, "")}
	if c.Name == "" {
		return c, bad[0]
	}
	var err error
	// Like the reference plugin, ReadFirewall ignores any other value of the key backend.
	if backends := []string{"iptables", "firewalld"}; slices.Contains(backends, c.Backend) {
		c.forward, err = setup.ParseForward(c.Backend)
		bad = append(bad, err)
	}
	if !slices.Contains([]string{"", "CNI-ADMIN", "BRIDGEVETH-ADMIN"}, c.AdminChain) {
		bad = append(bad, fmt.Errorf("iptablesAdminChainName: %q: the administrator's chain is BRIDGEVETH-ADMIN; write your rules there, and leave the key out", c.AdminChain))
	}
	if c.forward != setup.ForwardIPTables && !slices.Contains([]string{"", "trusted", "bridgeveth"}, c.Zone) {
		bad = append(bad, fmt.Errorf("firewalldZone: %q: bridgeveth adds the bridge to the zone bridgeveth; write your rules there, and leave the key out", c.Zone))
	}
	if c.ingress, err = setup.ParseIngress(cmp.Or(c.IngressPolicy, "open")); err != nil {
		bad = append(bad, fmt.Errorf("ingressPolicy: %w", err))
	}
	return c, errors.Join(bad...)
}

// Filtered is an attachment of which the plugin firewall manages the FORWARD rules and the ingress
// policy. Filtered implements the interface Part.
type Filtered struct{ *Attached }

// Open opens the attachment for the plugin firewall. args are the arguments of ADD or CHECK. The parameter
// host may be nil, as for Config.Open.
func (c *FirewallConfig) Open(host *setup.Host, args *skel.CmdArgs) (*Filtered, error) {
	a, err := openChained(host, &c.PluginConf, args)
	if err != nil {
		return nil, err
	}
	a.Port.Network.Forward, a.Port.Network.Ingress = c.forward, c.ingress
	return &Filtered{a}, nil
}

// Verify implements Part.
func (f *Filtered) Verify() (host, container error) { return f.Host.VerifyFiltered(f.Port), nil }

// Missing implements Part.
func (f *Filtered) Missing() (network []string, port, err error) {
	return nil, f.Host.VerifyFiltered(f.Port), nil
}

// Repair implements Part. ADD of the plugin firewall also calls Repair, to make all rules.
func (f *Filtered) Repair() (restored []string, err error) { return f.Host.EnsureFiltered(f.Port) }
