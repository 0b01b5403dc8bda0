// Package firewall is the CNI plugin firewall of the reference implementation, for
// interfaces that bridgeveth has made: it lets packets past a FORWARD chain that denies, where
// bridgeveth has not done so yet, and keeps networks apart. See docs/dropin.md.
package firewall

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/plugins/bridgeveth"
)

// Name is what the program is called by.
const Name = "firewall"

// Verbs are the plugin's, for skel. DEL and GC have nothing to do: what ADD sets goes with
// the network's last container, which is the first plugin's to see.
func Verbs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: add, Del: nothing, Check: Check, GC: nothing, Status: status}
}

// config holds the keys of the reference plugin. Others are passed over, as by that.
type config struct {
	types.PluginConf
	Backend       string `json:"backend"`
	AdminChain    string `json:"iptablesAdminChainName"`
	Zone          string `json:"firewalldZone"`
	IngressPolicy string `json:"ingressPolicy"`

	forward setup.Forward
	ingress setup.Ingress
}

func readConfig(args *skel.CmdArgs) (*config, error) {
	c := &config{}
	bad := []error{plugin.Read(args.StdinData, c, "")}
	if c.Name == "" {
		return c, bad[0] // it is no configuration at all
	}
	var err error
	// Anything else is its default to the reference, too.
	if backends := []string{"iptables", "firewalld"}; slices.Contains(backends, c.Backend) {
		c.forward, err = setup.ParseForward(c.Backend)
		bad = append(bad, err)
	}
	if !slices.Contains([]string{"", "CNI-ADMIN", "BRIDGEVETH-ADMIN"}, c.AdminChain) {
		bad = append(bad, fmt.Errorf("iptablesAdminChainName: %q: the administrator's chain is BRIDGEVETH-ADMIN; write your rules there, and leave the key out", c.AdminChain))
	}
	if c.forward != setup.ForwardIPTables && !slices.Contains([]string{"", "trusted", "bridgeveth"}, c.Zone) {
		bad = append(bad, fmt.Errorf("firewalldZone: %q: the bridge is put into the zone bridgeveth; write your rules there, and leave the key out", c.Zone))
	}
	if c.ingress, err = setup.ParseIngress(cmp.Or(c.IngressPolicy, "open")); err != nil {
		bad = append(bad, fmt.Errorf("ingressPolicy: %w", err))
	}
	if err := errors.Join(bad...); err != nil {
		return c, plugin.Errorf(types.ErrInvalidNetworkConfig, "network %s: %w", c.Name, err)
	}
	return c, nil
}

// add is the verb ADD: it returns prevResult as it is.
func add(args *skel.CmdArgs) error {
	c, b, err := open(args)
	if err != nil {
		return err
	}
	defer b.Host.Close()
	if _, err := b.Host.EnsureFiltered(b.Port); err != nil {
		return bridgeveth.Error(err)
	}
	return plugin.PrintResult(b.Previous, c.CNIVersion)
}

// open finds the port that the plugin before has made.
func open(args *skel.CmdArgs) (*config, *bridgeveth.Behind, error) {
	c, err := readConfig(args)
	if err != nil {
		return nil, nil, err
	}
	b, err := bridgeveth.OpenBehind(&c.PluginConf, args)
	if err != nil {
		return nil, nil, err
	}
	b.Port.Network.Forward, b.Port.Network.Ingress = c.forward, c.ingress
	return c, b, nil
}

// Check is the verb CHECK. It changes nothing.
func Check(args *skel.CmdArgs) error {
	_, b, err := open(args)
	if err != nil {
		return err
	}
	defer b.Host.Close()
	if err := b.Host.VerifyFiltered(b.Port); err != nil {
		return plugin.Errorf(plugin.CodeDrift, "CHECK of filters for container %s: %w", args.ContainerID, err)
	}
	return nil
}

// Repair puts back what the host has lost of what ADD has made, by the arguments of CHECK,
// and says what that was.
func Repair(args *skel.CmdArgs) (mended []string, err error) {
	_, b, err := open(args)
	if err != nil {
		return nil, err
	}
	defer b.Host.Close()
	mended, err = b.Host.EnsureFiltered(b.Port)
	return mended, bridgeveth.Error(err)
}

// status is the verb STATUS: an error says that an ADD would be refused.
func status(args *skel.CmdArgs) error {
	_, err := readConfig(args)
	return err
}

func nothing(*skel.CmdArgs) error { return nil }
