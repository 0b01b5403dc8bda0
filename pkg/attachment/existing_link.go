package attachment

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// The functions of this file are for a network in which bridgeveth is not the first plugin of the
// list. The plugin before bridgeveth has then made an interface, such as a tap. bridgeveth makes no
// veth pair, but adds the host's end of that interface to the bridge (containernetworking/cni,
// CONVENTIONS.md, "Chained Plugins").

// UseExistingLink sets p.ExistingLink to the host's link in the result of the plugin before
// bridgeveth. The parameter previous is this result. The error names every key that has no effect
// on such a link.
func (c *Config) UseExistingLink(p *setup.Port, previous *current.Result, args *skel.CmdArgs) error {
	var bad []error
	switch names := hostLinks(previous, c.Bridge); len(names) {
	case 0:
		bad = append(bad, errors.New("prevResult: it has no interface on the host to add to the bridge; put bridgeveth first in \"plugins\", or after a plugin that makes such an interface"))
	case 1:
		useLink(p, names[0])
	default:
		bad = append(bad, fmt.Errorf("prevResult: it has %s on the host, and bridgeveth adds only one interface to the bridge; give each interface a network of its own", strings.Join(names, ", ")))
	}
	inside := slices.ContainsFunc(previous.Interfaces, func(i *current.Interface) bool { return i.Sandbox == args.Netns })
	if inside && c.IPAM.Type != "" {
		bad = append(bad, errors.New("ipam: the plugin before bridgeveth configures the interface in the container; set \"ipam\" for that plugin"))
	}
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"macspoofchk", isTrue(c.MACSpoofCheck)}, {"ipspoofchk", isTrue(c.IPSpoofCheck)}, {"enabledad", c.EnableDAD}, {"sysctl", len(c.Sysctl) > 0},
		{"disableContainerInterface", c.DisableContainerInterface}, {"mac", c.mac != nil},
	} {
		if key.set {
			bad = append(bad, fmt.Errorf("%s: the plugin that made %s also configures the container's interface; leave the key out", key.name, p.ExistingLink))
		}
	}
	if err := errors.Join(bad...); err != nil {
		return plugin.Errorf(types.ErrInvalidNetworkConfig, "network %s: %w", c.Name, err)
	}
	return nil
}

// useLink makes a link of another plugin the bridge port, and removes the port's guards. The link
// may lead to a virtual machine, and bridgeveth has not chosen the addresses of this machine. A
// guard would drop the machine's packets.
func useLink(p *setup.Port, link string) {
	p.ExistingLink, p.Guard, p.BPDUGuard, p.Network.Guarded = link, setup.GuardNone, false, false
}

// isTrue returns the value of a configuration key, or false if the key is absent.
func isTrue(key *bool) bool { return key != nil && *key }

// hostLinks returns the names of the host's links in a result. It leaves out the bridge and its
// VLAN links.
func hostLinks(r *current.Result, bridge string) (names []string) {
	for _, i := range r.Interfaces {
		if i.Sandbox == "" && i.Name != bridge && !strings.HasPrefix(i.Name, bridge+".") {
			names = append(names, i.Name)
		}
	}
	return names
}

// existingLink returns the name of the bridge port if the port is a link of another plugin. It
// returns "" if ADD has made a veth pair. r is the result of ADD.
func existingLink(r *current.Result, p *setup.Port) string {
	names := hostLinks(r, p.Network.Bridge)
	if len(names) == 0 || slices.Contains(names, p.Port()) {
		return ""
	}
	return names[0]
}

// MergeResults returns the result of the plugin before bridgeveth (the parameter previous), with
// the addresses, routes and DNS settings of bridgeveth's own result. It assigns the added addresses
// to the interface in the sandbox, such as the interface of a virtual machine. If there is no such
// interface, it assigns them to the host's link.
func MergeResults(previous, own *current.Result) *current.Result {
	of := slices.IndexFunc(previous.Interfaces, func(i *current.Interface) bool { return i.Sandbox != "" })
	if of < 0 {
		of = slices.IndexFunc(previous.Interfaces, func(i *current.Interface) bool { return i.Sandbox == "" })
	}
	for _, ip := range own.IPs {
		ip.Interface = current.Int(of)
	}
	previous.IPs = append(previous.IPs, own.IPs...)
	previous.Routes = append(previous.Routes, own.Routes...)
	if !own.DNS.IsEmpty() {
		previous.DNS = own.DNS
	}
	return previous
}
