package bridgeveth

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

// After a plugin that has made the interface, such as a tap, there is no veth pair to
// make: its end on the host is plugged into the bridge (containernetworking/cni,
// CONVENTIONS.md, "Chained Plugins"). What is at the other end is that plugin's.

// hostLinks lists the interfaces of a result that are on the host, but for the bridge and
// its VLAN links.
func hostLinks(r *current.Result, bridge string) (names []string) {
	for _, i := range r.Interfaces {
		if i.Sandbox == "" && i.Name != bridge && !strings.HasPrefix(i.Name, bridge+".") {
			names = append(names, i.Name)
		}
	}
	return names
}

// existingLink is the link on the host that ADD has plugged in, by its result; "" is a veth
// pair of our own.
func existingLink(r *current.Result, p *setup.Port) string {
	names := hostLinks(r, p.Network.Bridge)
	if len(names) == 0 || slices.Contains(names, p.Port()) {
		return ""
	}
	return names[0]
}

// accept takes the link to plug in from what the plugin before has returned.
func (c *config) accept(p *setup.Port, previous *current.Result, args *skel.CmdArgs) error {
	var bad []error
	switch names := hostLinks(previous, c.Bridge); len(names) {
	case 0:
		bad = append(bad, errors.New("prevResult: it lists no interface on the host to plug into the bridge; put bridgeveth first, or behind a plugin that makes one"))
	case 1:
		p.ExistingLink = names[0]
	default:
		bad = append(bad, fmt.Errorf("prevResult: it lists %s on the host, and bridgeveth plugs in one; attach them by networks of their own", strings.Join(names, ", ")))
	}
	inside := slices.ContainsFunc(previous.Interfaces, func(i *current.Interface) bool { return i.Sandbox == args.Netns })
	if inside && c.IPAM.Type != "" {
		bad = append(bad, errors.New("ipam: the interface in the container is set up by the plugin that made it; give the addresses to that one"))
	}
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"macspoofchk", c.MACSpoofCheck}, {"ipspoofchk", c.IPSpoofCheck}, {"enabledad", c.EnableDAD}, {"sysctl", len(c.Sysctl) > 0},
		{"disableContainerInterface", c.DisableContainerInterface}, {"mac", c.mac != nil},
	} {
		if key.set {
			bad = append(bad, fmt.Errorf("%s: what is behind %s is set up by the plugin that made it; leave the key out", key.name, p.ExistingLink))
		}
	}
	if err := errors.Join(bad...); err != nil {
		return plugin.Errorf(types.ErrInvalidNetworkConfig, "network %s: %w", c.Name, err)
	}
	return nil
}

// joined is what the plugin before has returned, with our addresses. They are for what is
// behind the link that is plugged in: a virtual machine, if the result names one.
func joined(previous, own *current.Result) *current.Result {
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
