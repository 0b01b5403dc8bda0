package attachment

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Config is a network configuration of bridgeveth. docs/configuration.md describes its keys. The
// unexported fields hold the values that Read has parsed.
type Config struct {
	types.PluginConf
	Bridge           string          `json:"bridge"`
	IsGateway        bool            `json:"isGateway"`
	IsDefaultGateway bool            `json:"isDefaultGateway"`
	ForceAddress     bool            `json:"forceAddress"`
	GatewayConflict  string          `json:"gatewayConflict"`
	IPMasq           bool            `json:"ipMasq"`
	IPMasqBackend    string          `json:"ipMasqBackend"`
	MasqExclude      []string        `json:"masqExclude"` // subnets
	MTU              json.RawMessage `json:"mtu"`         // bytes, or "auto"
	HairpinMode      bool            `json:"hairpinMode"`
	PromiscMode      bool            `json:"promiscMode"`
	PortIsolation    bool            `json:"portIsolation"`
	MACSpoofCheck    *bool           `json:"macspoofchk"` // nil means the default, which the method guard chooses
	IPSpoofCheck     *bool           `json:"ipspoofchk"`
	IngressPolicy    string          `json:"ingressPolicy"`
	runtimeKeys
	forwardKeys
	containerKeys
	vlanKeys

	forward     setup.Forward
	chains      []setup.Chain // chains of other programs that must accept the bridge's packets
	mark        uint32
	conflict    setup.Conflict
	vlans       setup.VLANs
	ingress     setup.Ingress
	mtu         int  // bytes; 0 means the MTU of the bridge
	autoMTU     bool // use the MTU of the host's uplink, see ResolveMTU
	fastPath    setup.FastPath
	masqExclude []netip.Prefix
	hostPorts   []setup.HostPort
	bandwidth   setup.Bandwidth
	mac         net.HardwareAddr // of the container's interface; nil means a MAC that is computed from the container's address
}

// runtimeKeys are keys that do not belong to bridgeveth. The runtime or libcni adds some of them.
// The others, such as cniVersions, are keys of a plugin list. If a file configures a single plugin,
// libcni passes them to this plugin.
type runtimeKeys struct {
	Args                   json.RawMessage `json:"args"`
	RuntimeConfig          json.RawMessage `json:"runtimeConfig"`
	CNIVersions            json.RawMessage `json:"cniVersions"`
	DisableCheck           json.RawMessage `json:"disableCheck"`
	DisableGC              json.RawMessage `json:"disableGC"`
	LoadOnlyInlinedPlugins json.RawMessage `json:"loadOnlyInlinedPlugins"`
}

// forwardKeys are the keys about forwarded packets: rules in the FORWARD chains of other programs,
// incoming connections, and the fast path (a flowtable of nf_tables).
type forwardKeys struct {
	Forward       string          `json:"forward"`
	ForwardChains []string        `json:"forwardChains"` // each such as "inet filter forward"
	ForwardMark   string          `json:"forwardMark"`   // such as "0x100000"
	Inbound       string          `json:"inbound"`
	FastPath      json.RawMessage `json:"fastPath"` // true, false or "auto"
}

// containerKeys are the keys about the container's interface.
type containerKeys struct {
	EnableDAD                 bool              `json:"enabledad"`
	DisableContainerInterface bool              `json:"disableContainerInterface"`
	Sysctl                    map[string]string `json:"sysctl"` // by key, such as net.ipv4.conf.IFNAME.rp_filter
}

// vlanKeys are the keys about the VLANs of the container's bridge port.
type vlanKeys struct {
	VLAN                int         `json:"vlan"`
	VLANTrunk           []vlanTrunk `json:"vlanTrunk"`
	PreserveDefaultVLAN bool        `json:"preserveDefaultVlan"`
}

// vlanTrunk is an entry of the key vlanTrunk: a single VLAN, a range of VLANs, or both.
type vlanTrunk struct {
	ID    *int `json:"id"`
	MinID *int `json:"minID"`
	MaxID *int `json:"maxID"`
}

// Read reads the configuration and the runtime's arguments. The error names every mistake, except
// mistakes below the key "ipam". c is never nil, because DEL and GC must work even if the
// configuration has mistakes. c.Name is empty if the configuration is not valid JSON.
func Read(args *skel.CmdArgs) (c *Config, wrong error) {
	c, wrong = read(args)
	return c, ofNetwork(c.Name, wrong)
}

// ofNetwork adds the network's name to the mistakes in its configuration.
func ofNetwork(name string, wrong error) error {
	if wrong == nil || name == "" {
		return wrong
	}
	return plugin.Errorf(types.ErrInvalidNetworkConfig, "network %s: %w", name, wrong)
}

func read(args *skel.CmdArgs) (c *Config, wrong error) {
	c = &Config{}
	unknown, wrong := plugin.Decode(args.StdinData, c, "")
	if c.Name == "" {
		return c, wrong
	}
	if c.Type == plugin.Bridge { // the reference plugin bridge ignores unknown keys
		unknown = nil
	}
	if c.Bridge == "" {
		c.Bridge = setup.DefaultBridge
	}
	c.IsGateway = c.IsGateway || c.IsDefaultGateway
	return c, errors.Join(unknown, wrong, c.validate(), c.readRuntime(args.Args))
}

// validate parses and checks the values of the configuration's keys.
func (c *Config) validate() error {
	var bad []error
	if len(c.Name) > setup.MaxNetwork {
		bad = append(bad, fmt.Errorf("name: %s… has %d characters; use up to %d", c.Name[:20], len(c.Name), setup.MaxNetwork))
	}
	bad = append(bad, c.validateBridge(), c.readMTU(), c.readConflict(), c.validateSysctls(), c.readVLANs())
	bad = append(bad, c.readForward()...)
	var err error
	if c.ingress, err = setup.ParseIngress(cmp.Or(c.IngressPolicy, "open")); err != nil {
		bad = append(bad, fmt.Errorf("ingressPolicy: %w", err))
	}
	for i, text := range c.MasqExclude {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() {
			bad = append(bad, fmt.Errorf("masqExclude[%d]: %q is no subnet; write one as 10.0.0.0/8 or fd00::/8", i, text))
		}
		c.masqExclude = append(c.masqExclude, p)
	}
	if !slices.Contains([]string{"", "iptables", "nftables"}, c.IPMasqBackend) {
		bad = append(bad, fmt.Errorf("ipMasqBackend: %q is none of iptables, nftables; leave it out, the rules are always in nftables", c.IPMasqBackend))
	}
	if c.HairpinMode && c.PromiscMode {
		bad = append(bad, errors.New("promiscMode: with hairpinMode a container receives its own packets twice; set only one of these keys"))
	}
	if c.DisableContainerInterface && c.IPAM.Type != "" {
		bad = append(bad, errors.New(`disableContainerInterface: an interface that is down has no addresses; leave out "ipam"`))
	}
	if c.DisableContainerInterface && len(c.Sysctl) > 0 {
		bad = append(bad, errors.New(`sysctl: it has no effect with disableContainerInterface; leave out one of these keys`))
	}
	if len(c.MasqExclude) > 0 && !c.IPMasq {
		bad = append(bad, errors.New(`masqExclude: it has no effect without ipMasq; set "ipMasq", or leave the key out`))
	}
	return errors.Join(bad...)
}

// validateBridge checks the name of the bridge. It also refuses names that end with "+". iptables
// matches every name that begins with the text before "+" (iptables(8), "--in-interface").
func (c *Config) validateBridge() error {
	why := ""
	switch err := utils.ValidateInterfaceName(c.Bridge); {
	case err != nil:
		why = strings.TrimSpace(err.Msg + " " + err.Details)
	case strings.HasSuffix(c.Bridge, "+"):
		why = "iptables matches every name that begins with the part before +"
	default:
		why = reservedName(c.Bridge)
	}
	if why == "" {
		return nil
	}
	return fmt.Errorf("bridge: %q is no valid link name: %s; use up to 15 letters and digits", c.Bridge, why)
}

// readForward parses the keys forward, forwardChains, forwardMark, inbound and fastPath.
func (c *Config) readForward() (bad []error) {
	var err error
	if c.forward, err = setup.ParseForward(cmp.Or(c.Forward, "auto")); err != nil {
		bad = append(bad, fmt.Errorf("forward: %w", err))
	}
	for i, text := range c.ForwardChains {
		chain, err := setup.ParseChain(text)
		if err != nil {
			bad = append(bad, fmt.Errorf("forwardChains[%d]: %w", i, err))
		}
		c.chains = append(c.chains, chain)
	}
	if c.ForwardMark != "" {
		mark, err := strconv.ParseUint(c.ForwardMark, 0, 32)
		if err != nil || mark == 0 {
			bad = append(bad, fmt.Errorf(`forwardMark: %q is no mark of 32 bits; write one as "0x100000"`, c.ForwardMark))
		}
		c.mark = uint32(mark)
	}
	if !slices.Contains([]string{"", "open", "established"}, c.Inbound) {
		bad = append(bad, fmt.Errorf("inbound: %q is none of open, established", c.Inbound))
	}
	return append(bad, c.readFastPath())
}

// readFastPath parses the key fastPath: true, false or "auto".
func (c *Config) readFastPath() error {
	switch string(c.FastPath) {
	case "", "null", "false":
	case "true":
		c.fastPath = setup.FastPathOn
	case `"auto"`:
		c.fastPath = setup.FastPathAuto
	default:
		return fmt.Errorf(`fastPath: %s is none of true, false, "auto"`, c.FastPath)
	}
	return nil
}

// readConflict parses the keys gatewayConflict and forceAddress. forceAddress is the reference
// plugin's key, and means the same as the value "replace" of gatewayConflict.
func (c *Config) readConflict() (err error) {
	if c.conflict, err = setup.ParseConflict(cmp.Or(c.GatewayConflict, "error")); err != nil {
		return fmt.Errorf("gatewayConflict: %w", err)
	}
	if c.ForceAddress {
		if c.GatewayConflict != "" && c.conflict != setup.ConflictReplace {
			return fmt.Errorf("gatewayConflict: %q contradicts forceAddress; leave out one of these keys", c.GatewayConflict)
		}
		c.conflict = setup.ConflictReplace
	}
	return nil
}

// validateSysctls checks the names in the key sysctl. It accepts only sysctls below /proc/sys/net,
// because a network namespace has no other sysctls of its own.
func (c *Config) validateSysctls() error {
	var bad []error
	for key := range c.Sysctl {
		path := sysctlPath(key, "IFNAME")
		if !strings.HasPrefix(path, "net/") || !filepath.IsLocal(path) || filepath.Clean(path) != path {
			bad = append(bad, fmt.Errorf("sysctl: %q is no sysctl below net; write one as net.ipv4.conf.IFNAME.rp_filter", key))
		}
	}
	return errors.Join(bad...)
}

// readMTU parses the key mtu: a number of bytes, or "auto".
func (c *Config) readMTU() error {
	var word string
	switch {
	case len(c.MTU) == 0 || string(c.MTU) == "null":
	case json.Unmarshal(c.MTU, &word) == nil && word == "auto":
		c.autoMTU = true
	case json.Unmarshal(c.MTU, &c.mtu) != nil:
		return fmt.Errorf(`mtu: %s is neither a number of bytes nor "auto"`, c.MTU)
	case c.mtu != 0 && (c.mtu < setup.MinMTU || c.mtu > setup.MaxMTU):
		return fmt.Errorf(`mtu: %d is not between %d and %d bytes; leave it out for the MTU of the bridge, or write "auto" for the MTU of the uplink`, c.mtu, setup.MinMTU, setup.MaxMTU)
	}
	return nil
}
