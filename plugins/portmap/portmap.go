// Package portmap is the CNI plugin portmap of the reference implementation, for
// interfaces that bridgeveth has made: it publishes ports of a container on the host, by the
// same means as bridgeveth with the capability portMappings. See docs/dropin.md.
package portmap

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
	"github.com/bridgeveth/bridgeveth/plugins/bridgeveth"
)

// Name is what the program is called by.
const Name = "portmap"

// Verbs are the plugin's, for skel.
func Verbs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: add, Del: del, Check: Check, GC: gc, Status: status}
}

// config holds the keys of the reference plugin. Others are passed over, as by that.
type config struct {
	types.PluginConf
	Backend       string   `json:"backend"`
	MasqAll       bool     `json:"masqAll"`
	MarkMasqBit   *int     `json:"markMasqBit"`
	SetMarkChain  string   `json:"externalSetMarkChain"`
	ConditionsV4  []string `json:"conditionsV4"`
	ConditionsV6  []string `json:"conditionsV6"`
	RuntimeConfig struct {
		PortMappings []bridgeveth.PortMapping `json:"portMappings"`
	} `json:"runtimeConfig"`

	ports []setup.HostPort
}

// readConfig reads the configuration. DEL does what it can with one that is wrong.
func readConfig(args *skel.CmdArgs) (*config, error) {
	c := &config{}
	bad := []error{plugin.Read(args.StdinData, c, "")}
	if c.Name == "" {
		return c, bad[0] // it is no configuration at all
	}
	if !slices.Contains([]string{"", "iptables", "nftables"}, c.Backend) {
		bad = append(bad, fmt.Errorf("backend: %q is none of iptables, nftables; leave it out, the rules are in nftables anyway", c.Backend))
	}
	if c.MarkMasqBit != nil && (*c.MarkMasqBit < 0 || *c.MarkMasqBit > 31) {
		bad = append(bad, fmt.Errorf("markMasqBit: %d is outside 0..31; leave it out, it makes no difference", *c.MarkMasqBit))
	}
	if c.MarkMasqBit != nil && c.SetMarkChain != "" {
		bad = append(bad, errors.New("markMasqBit: externalSetMarkChain says otherwise; leave one of them out"))
	}
	if c.MasqAll {
		bad = append(bad, errors.New("masqAll: containers get to see who asks, unless the answer would not come back; leave it out"))
	}
	for key, conditions := range map[string][]string{"conditionsV4": c.ConditionsV4, "conditionsV6": c.ConditionsV6} {
		if len(conditions) > 0 {
			bad = append(bad, fmt.Errorf("%s: %q: there is no rule of its own to put them into; name a hostIP, or leave the key out", key, strings.Join(conditions, " ")))
		}
	}
	var err error
	c.ports, err = bridgeveth.ReadHostPorts(c.RuntimeConfig.PortMappings)
	if err := errors.Join(append(bad, err)...); err != nil {
		return c, plugin.Errorf(types.ErrInvalidNetworkConfig, "network %s: %w", c.Name, err)
	}
	return c, nil
}

// add is the verb ADD: it returns prevResult as it is.
func add(args *skel.CmdArgs) error {
	c, err := readConfig(args)
	if err != nil {
		return err
	}
	if len(c.ports) == 0 {
		return plugin.PassOn(&c.PluginConf)
	}
	b, err := c.open(args)
	if err != nil {
		return err
	}
	defer b.Host.Close()
	if err := b.Host.PublishPort(b.Port); err != nil {
		return bridgeveth.Error(err)
	}
	if err := plugin.PrintResult(b.Previous, c.CNIVersion); err != nil {
		return bridgeveth.Error(errors.Join(err, b.Host.UnpublishPort(b.Port.Attachment, c.ports...)))
	}
	return nil
}

// open finds the port that the plugin before has made.
func (c *config) open(args *skel.CmdArgs) (*bridgeveth.Behind, error) {
	b, err := bridgeveth.OpenBehind(&c.PluginConf, args)
	if err != nil {
		return nil, err
	}
	// The families of the network are for rules that are not ours to change.
	b.Port.Network.IPv4, b.Port.Network.IPv6, b.Port.Network.Forward = false, false, setup.ForwardNone
	if err := bridgeveth.Publish(b.Port, c.ports); err != nil {
		b.Host.Close()
		return nil, err
	}
	return b, nil
}

// del is the verb DEL. It needs neither a namespace nor prevResult.
func del(args *skel.CmdArgs) error {
	c, wrong := readConfig(args)
	if wrong != nil && c.Name == "" {
		return wrong
	}
	host, err := setup.CurrentHost()
	if err != nil {
		return bridgeveth.Error(err)
	}
	defer host.Close()
	return bridgeveth.Error(host.UnpublishPort(bridgeveth.AttachmentOf(c.Name, args), c.ports...))
}

// Check is the verb CHECK. It changes nothing.
func Check(args *skel.CmdArgs) error {
	c, err := readConfig(args)
	if err != nil || len(c.ports) == 0 {
		return err
	}
	b, err := c.open(args)
	if err != nil {
		return err
	}
	defer b.Host.Close()
	if err := b.Host.VerifyPublished(b.Port); err != nil {
		return plugin.Errorf(plugin.CodeDrift, "CHECK of host ports of container %s: %w", args.ContainerID, err)
	}
	return nil
}

// Repair puts back what the host has lost of what ADD has made, by the arguments of CHECK,
// and says what that was.
func Repair(args *skel.CmdArgs) (mended []string, err error) {
	c, err := readConfig(args)
	if err != nil || len(c.ports) == 0 {
		return nil, err
	}
	b, err := c.open(args)
	if err != nil {
		return nil, err
	}
	defer b.Host.Close()
	if b.Host.VerifyPublished(b.Port) == nil {
		return nil, nil
	}
	if err := b.Host.PublishPort(b.Port); err != nil {
		return nil, bridgeveth.Error(err)
	}
	return []string{"host ports of port " + b.Port.Port()}, nil
}

// gc is the verb GC: it removes the host ports of attachments that are not valid.
func gc(args *skel.CmdArgs) error {
	c, wrong := readConfig(args)
	if wrong != nil && c.Name == "" {
		return wrong
	}
	valid, err := bridgeveth.ValidAttachments(c.Name, args)
	if err != nil {
		return err
	}
	host, err := setup.CurrentHost()
	if err != nil {
		return bridgeveth.Error(err)
	}
	defer host.Close()
	return bridgeveth.Error(host.CollectPublished(c.Name, valid))
}

// status is the verb STATUS: an error says that an ADD would be refused.
func status(args *skel.CmdArgs) error {
	_, err := readConfig(args)
	return err
}
