package bridgeveth

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
	ipamsimple "github.com/bridgeveth/bridgeveth/plugins/ipam-simple"
)

// config is the network configuration that a runtime gives us. Its keys are in
// docs/configuration.md.
type config struct {
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
	MACSpoofCheck    bool            `json:"macspoofchk"`
	IPSpoofCheck     bool            `json:"ipspoofchk"`
	IngressPolicy    string          `json:"ingressPolicy"`
	runtimeKeys
	forwardKeys
	containerKeys
	vlanKeys

	forward     setup.Forward
	chains      []setup.Chain // those of others that are to accept the bridge's packets
	mark        uint32
	conflict    setup.Conflict
	vlans       setup.VLANs
	ingress     setup.Ingress
	mtu         int  // bytes; 0 is that of the bridge
	autoMTU     bool // it is to be that of the uplink
	masqExclude []netip.Prefix
	hostPorts   []setup.HostPort
	bandwidth   setup.Bandwidth
	mac         net.HardwareAddr // of the container, if it is to have a particular one
}

// runtimeKeys are those that libcni leaves in the configuration, and that a
// configuration of one plugin, made into a list by libcni, may hold.
type runtimeKeys struct {
	Args                   json.RawMessage `json:"args"`
	RuntimeConfig          json.RawMessage `json:"runtimeConfig"`
	CNIVersions            json.RawMessage `json:"cniVersions"`
	DisableCheck           json.RawMessage `json:"disableCheck"`
	DisableGC              json.RawMessage `json:"disableGC"`
	LoadOnlyInlinedPlugins json.RawMessage `json:"loadOnlyInlinedPlugins"`
}

// forwardKeys say how packets get past chains of others, and which come in.
type forwardKeys struct {
	Forward       string   `json:"forward"`
	ForwardChains []string `json:"forwardChains"` // "inet filter forward"
	ForwardMark   string   `json:"forwardMark"`   // "0x100000"
	Inbound       string   `json:"inbound"`
}

// containerKeys say how a container's end of the pair is set up.
type containerKeys struct {
	EnableDAD                 bool              `json:"enabledad"`
	DisableContainerInterface bool              `json:"disableContainerInterface"`
	Sysctl                    map[string]string `json:"sysctl"` // by key, such as net.ipv4.conf.IFNAME.rp_filter
}

// vlanKeys say which VLANs containers are in.
type vlanKeys struct {
	VLAN                int         `json:"vlan"`
	VLANTrunk           []vlanTrunk `json:"vlanTrunk"`
	PreserveDefaultVLAN bool        `json:"preserveDefaultVlan"`
}

// vlanTrunk is one VLAN, or a range, or both.
type vlanTrunk struct {
	ID    *int `json:"id"`
	MinID *int `json:"minID"`
	MaxID *int `json:"maxID"`
}

// readConfig reads the configuration. wrong names every mistake in it at once, those below
// "ipam" too where the IPAM plugin is ours. ADD, CHECK and STATUS refuse such a configuration.
// DEL and GC do all they can with the rest of it: what it once made has to go.
func readConfig(args *skel.CmdArgs) (c *config, wrong error) {
	c = &config{}
	unknown, wrong := plugin.Decode(args.StdinData, c, "")
	if c.Name == "" {
		return c, wrong // it is no configuration at all
	}
	if c.Type == Reference {
		unknown = nil
	}
	if c.Bridge == "" {
		c.Bridge = setup.DefaultBridge
	}
	c.IsGateway = c.IsGateway || c.IsDefaultGateway
	wrong = errors.Join(unknown, wrong, c.validate(), c.readRuntime(args.Args))
	if wrong == nil {
		return c, nil // a verb of the IPAM plugin reads what is below "ipam"
	}
	if _, self := findIPAM(c.IPAM.Type, args.Path); self {
		wrong = errors.Join(wrong, ipamsimple.Validate(args))
	}
	return c, plugin.Errorf(types.ErrInvalidNetworkConfig, "network %s: %w", c.Name, wrong)
}

// validate finds every wrong value, before anything is touched.
func (c *config) validate() error {
	var bad []error
	if len(c.Name) > setup.MaxNetwork {
		bad = append(bad, fmt.Errorf("name: %s… is of %d letters; use up to %d", c.Name[:20], len(c.Name), setup.MaxNetwork))
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
		bad = append(bad, fmt.Errorf("ipMasqBackend: %q is none of iptables, nftables; leave it out, the rules are in nftables anyway", c.IPMasqBackend))
	}
	if c.HairpinMode && c.PromiscMode {
		bad = append(bad, errors.New("promiscMode: with hairpinMode a container would get its own packets twice; set one of them"))
	}
	if c.DisableContainerInterface && c.IPAM.Type != "" {
		bad = append(bad, errors.New(`disableContainerInterface: an interface that is down takes no address; leave out "ipam"`))
	}
	if c.DisableContainerInterface && len(c.Sysctl) > 0 {
		bad = append(bad, errors.New(`sysctl: disableContainerInterface leaves the interface as it is; leave one of them out`))
	}
	if len(c.MasqExclude) > 0 && !c.IPMasq {
		bad = append(bad, errors.New(`masqExclude: nothing is masqueraded; set "ipMasq", or leave the key out`))
	}
	return errors.Join(bad...)
}

// validateBridge looks at the bridge's name, in which two characters that the kernel allows
// mean more: "%d" becomes a number (__dev_alloc_name in net/core/dev.c), and "+" in the end any
// letters that follow (iptables(8), "--in-interface").
func (c *config) validateBridge() error {
	why := ""
	switch err := utils.ValidateInterfaceName(c.Bridge); {
	case err != nil:
		why = strings.TrimSpace(err.Msg + " " + err.Details)
	case strings.Contains(c.Bridge, "%"):
		why = "for % the kernel puts a number of its own"
	case strings.HasSuffix(c.Bridge, "+"):
		why = "to iptables it is every link that is called so or longer"
	default:
		return nil
	}
	return fmt.Errorf("bridge: %q is no name for a link: %s; use up to 15 letters and digits", c.Bridge, why)
}

// readForward reads how packets get past chains of others.
func (c *config) readForward() (bad []error) {
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
			bad = append(bad, fmt.Errorf(`forwardMark: %q is no mark; write bits of 32, as "0x100000"`, c.ForwardMark))
		}
		c.mark = uint32(mark)
	}
	if !slices.Contains([]string{"", "open", "established"}, c.Inbound) {
		bad = append(bad, fmt.Errorf("inbound: %q is none of open, established", c.Inbound))
	}
	return bad
}

// readConflict reads what becomes of another address of the bridge's. forceAddress is
// the reference plugin's word for one of the answers.
func (c *config) readConflict() (err error) {
	if c.conflict, err = setup.ParseConflict(cmp.Or(c.GatewayConflict, "error")); err != nil {
		return fmt.Errorf("gatewayConflict: %w", err)
	}
	if c.ForceAddress {
		if c.GatewayConflict != "" && c.conflict != setup.ConflictReplace {
			return fmt.Errorf("gatewayConflict: %q is not what forceAddress says; leave one of them out", c.GatewayConflict)
		}
		c.conflict = setup.ConflictReplace
	}
	return nil
}

// validateSysctls looks at the keys: what is outside of /proc/sys/net is not the
// container's own.
func (c *config) validateSysctls() error {
	var bad []error
	for key := range c.Sysctl {
		path := sysctlPath(key, "IFNAME")
		if !strings.HasPrefix(path, "net/") || !filepath.IsLocal(path) || filepath.Clean(path) != path {
			bad = append(bad, fmt.Errorf("sysctl: %q is no key of the network's; write one as net.ipv4.conf.IFNAME.rp_filter", key))
		}
	}
	return errors.Join(bad...)
}

// sysctlPath is where a key is below /proc/sys. As sysctl(8) has it, the first of "." and
// "/" in a key is what parts are told apart by; IFNAME stands for the interface.
func sysctlPath(key, ifname string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		key = strings.NewReplacer(".", "/", "/", ".").Replace(key)
	}
	return strings.ReplaceAll(key, "IFNAME", ifname)
}

// readVLANs reads the VLANs.
func (c *config) readVLANs() error {
	var bad []error
	if c.VLAN < 0 || c.VLAN > setup.MaxVLAN {
		bad = append(bad, fmt.Errorf("vlan: %d is outside 1..%d; leave it out for none", c.VLAN, setup.MaxVLAN))
	}
	c.vlans = setup.VLANs{Native: c.VLAN, KeepDefault: c.PreserveDefaultVLAN}
	if c.Type == Reference && c.VLAN == 0 && len(c.VLANTrunk) > 0 {
		c.vlans.Untagged = 1 // as the reference has it, whatever the bridge's default VLAN is
	}
	for i, t := range c.VLANTrunk {
		ranges, err := t.ranges()
		if err != nil {
			bad = append(bad, fmt.Errorf("vlanTrunk[%d]: %w", i, err))
		}
		c.vlans.Trunk = append(c.vlans.Trunk, ranges...)
	}
	switch routed := fmt.Sprintf("%s.%d", c.Bridge, c.VLAN); {
	case !c.IsGateway:
	case c.VLAN == 0 && len(c.VLANTrunk) > 0 && !c.PreserveDefaultVLAN && c.vlans.Untagged == 0:
		bad = append(bad, errors.New(`vlanTrunk: the gateway would be in the bridge's default VLAN, and containers are not; set "vlan", or "preserveDefaultVlan"`))
	case c.VLAN != 0 && len(routed) > maxInterfaceName:
		bad = append(bad, fmt.Errorf("vlan: the gateway's link would be called %s, which is longer than %d letters; use a shorter bridge", routed, maxInterfaceName))
	}
	return errors.Join(bad...)
}

// maxInterfaceName is IFNAMSIZ-1 in linux/if.h, in bytes.
const maxInterfaceName = 15

// ranges lists the VLANs of an entry.
func (t vlanTrunk) ranges() (list []setup.VLANRange, err error) {
	if t.ID != nil {
		list = append(list, setup.VLANRange{First: *t.ID, Last: *t.ID})
	}
	if (t.MinID == nil) != (t.MaxID == nil) || t.ID == nil && t.MinID == nil {
		return nil, errors.New(`it has to have "id", or both of "minID" and "maxID"`)
	}
	if t.MinID != nil {
		list = append(list, setup.VLANRange{First: *t.MinID, Last: *t.MaxID})
	}
	for _, r := range list {
		if r.First < 1 || r.First > r.Last || r.Last > setup.MaxVLAN {
			return nil, fmt.Errorf("%d to %d is no range within 1..%d", r.First, r.Last, setup.MaxVLAN)
		}
	}
	return list, nil
}

// readMTU reads the MTU: a number, or the word for that of the uplink.
func (c *config) readMTU() error {
	var word string
	switch {
	case len(c.MTU) == 0 || string(c.MTU) == "null":
	case json.Unmarshal(c.MTU, &word) == nil && word == "auto":
		c.autoMTU = true
	case json.Unmarshal(c.MTU, &c.mtu) != nil:
		return fmt.Errorf(`mtu: %s stands where a number of bytes belongs, or "auto"`, c.MTU)
	case c.mtu != 0 && (c.mtu < setup.MinMTU || c.mtu > setup.MaxMTU):
		return fmt.Errorf(`mtu: %d is outside %d..%d bytes; leave it out for that of the bridge, or write "auto" for that of the uplink`, c.mtu, setup.MinMTU, setup.MaxMTU)
	}
	return nil
}

// network is the part of the configuration that is the same for each container.
func (c *config) network() *setup.Network {
	return &setup.Network{
		Bridge: c.Bridge, VLANs: c.vlans, MTU: c.mtu, Conflict: c.conflict, Promiscuous: c.PromiscMode, MasqueradeNot: c.masqExclude,
		Forward: c.forward, ForwardChains: c.chains, Mark: c.mark, Ingress: c.ingress, AnswersOnly: c.Inbound == "established", Guarded: c.guard() != setup.GuardNone,
	}
}

// guard says under which addresses containers may send.
func (c *config) guard() setup.Guard {
	switch {
	case c.IPSpoofCheck:
		return setup.GuardIP
	case c.MACSpoofCheck:
		return setup.GuardMAC
	}
	return setup.GuardNone
}

// port is the attachment that a command is about, still without addresses.
func (c *config) port(args *skel.CmdArgs, container *setup.Namespace) *setup.Port {
	sysctls := map[string]string{}
	for key, value := range c.Sysctl {
		sysctls[strings.TrimPrefix(sysctlPath(key, args.IfName), "net/")] = strings.Join(strings.Fields(value), " ")
	}
	return &setup.Port{
		Attachment: c.attachment(args), Container: container,
		Network: c.network(), MTU: c.mtu, MAC: c.mac,
		Hairpin:  c.HairpinMode || len(c.hostPorts) > 0 && !c.PromiscMode, // a container with host ports reaches its own
		Isolated: c.PortIsolation || c.ingress == setup.IngressIsolated, Guard: c.guard(), Bandwidth: c.bandwidth,
		Sysctls: sysctls, DetectDuplicates: c.EnableDAD, Autoconfigured: c.autoconfigured(), Down: c.DisableContainerInterface,
	}
}

// asksByInterface reports whether the IPAM plugin asks a server for addresses by the container's
// interface, which therefore has to be there before.
func (c *config) asksByInterface() bool { return c.IPAM.Type == "dhcp" }

// autoconfigured reports whether a container may have addresses of the network's owner besides those
// of the IPAM plugin.
func (c *config) autoconfigured() bool {
	return c.IPAM.Type == "" || c.asksByInterface() && !c.IPSpoofCheck
}

func (c *config) attachment(args *skel.CmdArgs) setup.Attachment {
	return AttachmentOf(c.Name, args)
}

// Namespaces opens the host's namespace, which is ours, and the container's. What is wrong
// with the latter is setup.ErrNoNamespace, setup.ErrNotNamespace or another error.
func Namespaces(args *skel.CmdArgs) (host *setup.Host, container *setup.Namespace, err error) {
	if host, err = setup.CurrentHost(); err != nil {
		return nil, nil, err
	}
	if container, err = setup.OpenNamespace(args.Netns); err == nil && container.Same(host.Namespace) && !ownMeant(args) {
		container.Close()
		err = fmt.Errorf("open %s: %w", args.Netns, errOwnNamespace)
	}
	if err != nil {
		host.Close()
		return nil, nil, fmt.Errorf("CNI_NETNS: %w", err)
	}
	return host, container, nil
}

// ownMeant reports whether the caller says by CNI_NETNS_OVERRIDE that it means the host's own
// namespace, in the words that the CNI library takes (containernetworking/cni, pkg/skel).
func ownMeant(args *skel.CmdArgs) bool {
	return args.NetnsOverride == "1" || strings.EqualFold(args.NetnsOverride, "true")
}

// errOwnNamespace says that a container would be its own host.
var errOwnNamespace = errors.New("that is the host's own network namespace; name the container's, or set CNI_NETNS_OVERRIDE=1 if it is meant")
