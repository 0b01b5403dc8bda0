package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// pluginList is a configuration file. The fields of pluginList, network and ranges are in the order
// in which people expect the keys.
type pluginList struct {
	CNIVersion  string    `json:"cniVersion"` // for runtimes that do not know cniVersions
	CNIVersions []string  `json:"cniVersions"`
	Name        string    `json:"name"`
	Plugins     []network `json:"plugins"`
}

type network struct {
	Type             string          `json:"type"`
	Bridge           string          `json:"bridge"`
	IsDefaultGateway bool            `json:"isDefaultGateway"`
	IPMasq           bool            `json:"ipMasq,omitempty"`
	MasqExclude      []string        `json:"masqExclude,omitempty"`
	HairpinMode      bool            `json:"hairpinMode,omitempty"`
	Forward          string          `json:"forward,omitempty"`
	MTU              string          `json:"mtu,omitempty"`
	Capabilities     map[string]bool `json:"capabilities,omitempty"`
	IPAM             ranges          `json:"ipam"`
}

type ranges struct {
	Type   string     `json:"type"`
	Ranges [][]subnet `json:"ranges"`
}

type subnet struct {
	Subnet string `json:"subnet"`
}

// runtime is what differs between the configurations of the runtimes.
type runtime struct {
	option       string // the value of --for
	name, bridge string
	subnets      []string // none: the option --subnet is required
	capabilities []string
	hairpin      bool   // containers reach host ports that the runtime publishes
	mtu          string // "" means the MTU of the bridge
	dropIn       bool   // the runtime needs the names of the reference plugins
}

var runtimes = []runtime{
	{option: "containerd", name: "containerd", bridge: "cni0", subnets: []string{"10.86.0.0/16"}, capabilities: []string{"portMappings", "bandwidth"}, hairpin: true},
	{option: "cri-o", name: "crio", bridge: "cni0", subnets: []string{"10.87.0.0/16", "fd87::/64"}, capabilities: []string{"bandwidth"}, hairpin: true},
	{option: "kubernetes", name: "kubernetes", bridge: "cni0", capabilities: []string{"portMappings", "bandwidth"}, hairpin: true, mtu: "auto"},
	{option: "nerdctl", name: "containers", bridge: "bv0", subnets: []string{"10.90.0.0/16"}, capabilities: []string{"portMappings", "bandwidth", "ips", "mac"}, dropIn: true},
	{option: "podman", name: "containers", bridge: "bv0", subnets: []string{"10.90.0.0/16"}, capabilities: []string{"portMappings", "ips", "mac"}, dropIn: true},
}

// choices are the options of "bvctl config new".
type choices struct {
	runtime, name, bridge string
	subnets, masqExclude  []string
	masquerade, firewalld bool
}

// newNew returns "bvctl config new".
func newNew() *cobra.Command {
	var c choices
	var options []string
	for _, r := range runtimes {
		options = append(options, r.option)
	}
	cmd := &cobra.Command{
		Use: "new", Short: "Write a network configuration to standard output", Args: cobra.NoArgs,
		Long: `Write a network configuration to standard output. Without options, it is for containerd. Redirect
the output to a file in /etc/cni/net.d whose name ends in .conflist.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.list(options)
			if err != nil {
				return err
			}
			return cli.PrintJSON(cmd.OutOrStdout(), list)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.runtime, "for", options[0], "runtime: "+strings.Join(options, ", "))
	flags.StringVar(&c.name, "name", "", "name of the network (default: a name that fits the runtime)")
	flags.StringVar(&c.bridge, "bridge", "", "name of the bridge (default: a name that fits the runtime)")
	flags.StringArrayVar(&c.subnets, "subnet", nil, "subnet of the containers; give the option twice for IPv4 and IPv6")
	flags.BoolVar(&c.masquerade, "masquerade", true, "masquerade packets from containers to other networks")
	flags.StringArrayVar(&c.masqExclude, "masq-exclude", nil, "destination subnet without masquerade; the option may be repeated")
	flags.BoolVar(&c.firewalld, "firewalld", false, "accept packets by firewalld alone")
	return cmd
}

// list returns the configuration. The error is that of ADD, if a value is wrong.
func (c choices) list(options []string) (*pluginList, error) {
	at := slices.Index(options, c.runtime)
	if at < 0 {
		return nil, fmt.Errorf("--for: %q is none of %s", c.runtime, strings.Join(options, ", "))
	}
	r := runtimes[at]
	if c.name != "" {
		r.name = c.name
	}
	if c.bridge != "" {
		r.bridge = c.bridge
	}
	if len(c.subnets) > 0 {
		r.subnets = c.subnets
	}
	if len(r.subnets) == 0 {
		return nil, errors.New("--subnet: it is missing, because each node needs a range of its own; give the podCIDR of this node")
	}
	n := network{
		Type: plugin.Bridgeveth, Bridge: r.bridge, IsDefaultGateway: true, IPMasq: c.masquerade, MasqExclude: c.masqExclude,
		HairpinMode: r.hairpin, MTU: r.mtu, Capabilities: map[string]bool{}, IPAM: ranges{Type: plugin.IPAMSimple},
	}
	if r.dropIn {
		n.Type, n.IPAM.Type = plugin.Bridge, plugin.HostLocal
	}
	if c.firewalld {
		n.Forward = "firewalld"
	}
	for _, name := range r.capabilities {
		n.Capabilities[name] = true
	}
	if err := checkBridge(r.bridge); err != nil {
		return nil, err
	}
	for _, s := range r.subnets {
		if err := checkFree(s, r.bridge); err != nil {
			return nil, err
		}
		n.IPAM.Ranges = append(n.IPAM.Ranges, []subnet{{s}})
	}
	list := &pluginList{CNIVersion: "0.4.0", CNIVersions: []string{"0.4.0", "1.0.0", "1.1.0"}, Name: r.name, Plugins: []network{n}}
	return list, inventory.ValidateList(list)
}

// checkBridge returns the error of ADD if a link of this host has the name of the bridge and is no bridge.
func checkBridge(name string) error {
	host, err := setup.CurrentHost()
	if err != nil {
		return err
	}
	defer host.Close()
	err = host.CheckBridge(name)
	if errors.Is(err, setup.ErrNotBridge) {
		return fmt.Errorf("--bridge: %w; choose a name that no link of this host has, or the name of a bridge", err)
	}
	return err
}

// checkFree returns an error if a link of this host, other than the bridge, has an address in the
// subnet. Containers could not reach the neighbours of that link.
func checkFree(subnet, bridge string) error {
	wanted, err := netip.ParsePrefix(subnet)
	if err != nil {
		return nil // ValidateList returns the error
	}
	links, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list the links of this host: %w", err)
	}
	for _, l := range links {
		addresses, err := l.Addrs()
		if err != nil || l.Name == bridge {
			continue // the link was deleted in the meantime, or the configuration is for this bridge
		}
		for _, a := range addresses {
			if used, err := netip.ParsePrefix(a.String()); err == nil && used.Overlaps(wanted) {
				return fmt.Errorf("--subnet: %s overlaps with %s of the link %s; choose another subnet", subnet, used, l.Name)
			}
		}
	}
	return nil
}
