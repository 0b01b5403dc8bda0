package setup

import (
	"net/netip"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/conntrack"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/elements"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/forward"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/hostports"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// Namespace is an open network namespace with its netlink sockets. Each socket is opened at its
// first use. Only one goroutine at a time may use a Namespace.
type Namespace = netns.Namespace

// Host is the network namespace with the bridges and the rules.
type Host struct {
	*Namespace

	// Known returns the attachments that have host ports, as far as the caller knows them: the fields
	// Attachment, Addresses and HostPorts. The function is called if the map of host ports does not
	// exist, for instance after "nft flush ruleset". The new map then has the host ports of all known
	// attachments whose bridge port exists, so no other container can get these host ports. Known may
	// be nil.
	Known func() ([]*Port, error)

	compared map[string][]plan.Difference // see RememberNetworks
}

// RememberNetworks is for a caller that verifies many containers of few networks. After this call,
// the Host compares each network with its plan only once, and remembers the result. It forgets all
// results when it restores something, and at the next call of RememberNetworks. Other programs may
// change the host meanwhile, so the caller repeats the call before it verifies the containers again.
// Such a Host must not attach ports, because AttachPort needs the present state.
func (h *Host) RememberNetworks() { h.compared = map[string][]plan.Difference{} }

// CurrentHost returns the calling thread's namespace as a Host.
func CurrentHost() (*Host, error) {
	ns, err := netns.Current()
	if err != nil {
		return nil, err
	}
	return &Host{Namespace: ns}, nil
}

// OpenNamespace opens the namespace at a path such as /run/netns/NAME or /proc/PID/ns/net. The
// error wraps ErrNoNamespace if the file does not exist, and ErrNotNamespace if the file is no
// namespace.
func OpenNamespace(path string) (*Namespace, error) { return netns.Open(path) }

// DeleteNamed removes the name of a namespace that EnsureNamed or ip-netns(8) created. The kernel
// deletes the namespace itself when no name, process or socket refers to it.
func DeleteNamed(name string) error { return netns.DeleteNamed(name) }

type (
	// Attachment identifies one interface of one container on one CNI network.
	Attachment = plan.Attachment
	// Network describes what the containers on one bridge share: the bridge, gateways and rules.
	Network = plan.Network
	// Port describes how one container is connected to a network.
	Port = plan.Port
	// Route is a route of a container.
	Route = plan.Route
	// HostPort is a TCP, UDP or SCTP port of the host that is redirected to a port of a container.
	HostPort = plan.HostPort
	// PortTakenError is returned for a host port that belongs to another attachment.
	PortTakenError = plan.PortTakenError
	// Limit is a bandwidth limit in one direction.
	Limit = plan.Limit
	// Bandwidth has the two bandwidth limits of a port, one for each direction.
	Bandwidth = plan.Bandwidth
	// VLANs are the VLANs of the ports of a network.
	VLANs = plan.VLANs
	// VLANRange is a range of VLAN IDs, both ends included.
	VLANRange = plan.VLANRange
	// Guard selects which source addresses of a container's packets are checked.
	Guard = plan.Guard
	// Forward selects how bridgeveth makes FORWARD chains accept the packets of a bridge.
	Forward = plan.Forward
	// Ingress selects who may open connections to containers.
	Ingress = plan.Ingress
	// FastPath selects whether packets of established connections skip all nf_tables chains.
	FastPath = plan.FastPath
	// Conflict selects what happens to addresses of the bridge that conflict with a gateway
	// address.
	Conflict = plan.Conflict
	// Chain names an nftables chain of another program.
	Chain = plan.Chain
	// DifferenceError is an error about one object that is missing, or that differs from the plan.
	DifferenceError = plan.DifferenceError
)

// The constants of package plan: first the limits of numbers, then the values of the types Guard,
// Forward, FastPath, Ingress and Conflict. ForwardRules, GatewayAddress and RouteOnLink are values of
// DifferenceError.Kind.
const (
	MinMTU     = plan.MinMTU
	MaxMTU     = plan.MaxMTU
	AnyMTU     = plan.AnyMTU
	MinRate    = plan.MinRate
	MaxVLAN    = plan.MaxVLAN
	MaxNetwork = plan.MaxNetwork

	GuardNone = plan.GuardNone
	GuardMAC  = plan.GuardMAC
	GuardIP   = plan.GuardIP

	ForwardAuto      = plan.ForwardAuto
	ForwardIPTables  = plan.ForwardIPTables
	ForwardFirewalld = plan.ForwardFirewalld
	ForwardSysctl    = plan.ForwardSysctl
	ForwardNone      = plan.ForwardNone

	FastPathOff  = plan.FastPathOff
	FastPathAuto = plan.FastPathAuto
	FastPathOn   = plan.FastPathOn

	IngressOpen       = plan.IngressOpen
	IngressSameBridge = plan.IngressSameBridge
	IngressIsolated   = plan.IngressIsolated

	ConflictError   = plan.ConflictError
	ConflictReplace = plan.ConflictReplace
	ConflictAdd     = plan.ConflictAdd

	ForwardRules   = plan.ForwardRules
	GatewayAddress = plan.GatewayAddress
	RouteOnLink    = plan.RouteOnLink
)

// The errors of packages below internal/ that a caller may handle.
var (
	ErrNoNamespace        = netns.ErrNoNamespace
	ErrNotNamespace       = netns.ErrNotNamespace
	ErrTaken              = rtnl.ErrTaken
	ErrNewer              = plan.ErrNewer
	ErrNotBridge          = bridges.ErrNotBridge
	ErrAlternativeName    = bridges.ErrAlternativeName
	ErrRenamed            = bridges.ErrRenamed
	ErrAddressConflict    = bridges.ErrAddressConflict
	ErrBridgeFull         = bridges.ErrBridgeFull
	ErrNoVLANs            = bridges.ErrNoVLANs
	ErrNoIPTables         = forward.ErrNoIPTables
	ErrNoFirewalld        = forward.ErrNoFirewalld
	ErrStrictForwardPorts = forward.ErrStrictForwardPorts
	ErrNoChain            = forward.ErrNoChain
	ErrDenied             = forward.ErrDenied
	ErrTablesGone         = elements.ErrTablesGone
	ErrNoFlowtables       = nft.ErrNoFlowtables
	ErrChanging           = netns.ErrChanging
)

// ParseForward returns the Forward with this name: auto, iptables, firewalld, sysctl or none.
func ParseForward(name string) (Forward, error) { return plan.ParseForward(name) }

// ParseIngress returns the Ingress with this name: open, same-bridge or isolated.
func ParseIngress(name string) (Ingress, error) { return plan.ParseIngress(name) }

// ParseConflict returns the Conflict with this name: error, replace or add.
func ParseConflict(name string) (Conflict, error) { return plan.ParseConflict(name) }

// ParseChain parses a chain as nft(8) writes it: family, table and name, with spaces between them.
func ParseChain(text string) (Chain, error) { return plan.ParseChain(text) }

// ParseAttachment returns the attachment that is encoded in the alias of a port of ours. ok is
// false for every other alias.
func ParseAttachment(alias string) (a Attachment, ok bool) { return plan.ParseAttachment(alias) }

// ProgramPath returns the path of a program. It searches three groups of folders, in this order:
// the folders in the parameter "first", the folders in PATH, and the sbin folders. If the program
// is not found, it returns the error of the last folder.
func ProgramPath(name string, first ...string) (path string, err error) {
	return forward.ProgramPath(name, first...)
}

// Addresses returns the addresses of an interface, without IPv6 link-local addresses. An interface
// that does not exist has no addresses.
func Addresses(ns *Namespace, name string) ([]netip.Prefix, error) {
	return rtnl.AddressesOf(ns, name)
}

// RaiseLoopback sets lo up and returns its addresses. The kernel adds 127.0.0.1 and ::1 when lo goes
// up. LowerLoopback is the inverse.
func RaiseLoopback(ns *Namespace) ([]netip.Prefix, error) { return rtnl.RaiseLoopback(ns) }

// LowerLoopback sets lo down.
func LowerLoopback(ns *Namespace) error { return rtnl.LowerLoopback(ns) }

// VerifyLoopback returns an error if lo is down.
func VerifyLoopback(ns *Namespace) error { return rtnl.VerifyLoopback(ns) }

// UplinkMTU returns the smallest MTU, in bytes, of the links that have a default route. It returns
// 0 if the host has no default route.
func (h *Host) UplinkMTU() (mtu int, err error) { return rtnl.UplinkMTU(h.Namespace) }

// EnsureBridge creates a bridge if it does not exist, and sets it up. mtu is in bytes; 0 means the
// kernel's default.
func (h *Host) EnsureBridge(name string, mtu int) error {
	return bridges.EnsureBridge(h.Namespace, name, mtu)
}

// CheckBridge returns an error if AttachPort would refuse the bridge called name: ErrNotBridge if a link of
// another kind has the name, and ErrAlternativeName if the name is only an alternative name of a bridge. If
// there is no such link, it returns nil.
func (h *Host) CheckBridge(name string) error { return bridges.CheckBridge(h.Namespace, name) }

// RenamedTo looks for a bridge that we created with this name and that another program has renamed.
// It returns the present name of the bridge, or "" if there is no such bridge.
func (h *Host) RenamedTo(name string) (string, error) { return bridges.RenamedTo(h.Namespace, name) }

// FoundPort describes a bridge port of ours that exists on the host.
type FoundPort = bridges.FoundPort

// Ports returns all our bridge ports on the host.
func (h *Host) Ports() ([]FoundPort, error) { return bridges.Ports(h.Namespace) }

// PortCounts returns the number of ports of each bridge, including the ports of other programs.
func (h *Host) PortCounts() (map[string]int, error) { return bridges.PortCounts(h.Namespace) }

// HasPort reports whether the host has a bridge port for an attachment.
func (h *Host) HasPort(a Attachment) (bool, error) { return bridges.HasPort(h.Namespace, a) }

// BridgeOf returns the name of the bridge that an attachment's port is on, or "" if the attachment
// has no port.
func (h *Host) BridgeOf(a Attachment) (string, error) {
	port, err := rtnl.ByName(h.Namespace, a.Port())
	if rtnl.Absent(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	br, err := bridges.BridgeOf(h.Namespace, port)
	return br.Name, err
}

// HostPorts returns the host ports of all containers, each as text such as "tcp *:8080". The key of
// the map is the name of the container's bridge port.
func (h *Host) HostPorts() (map[string][]string, error) { return hostports.Describe(h.Namespace) }

// Drop is a rule of ours that drops packets, with the rule's counter.
type Drop = ownrules.Drop

// Drops returns the rules in our tables that drop packets.
func (h *Host) Drops() ([]Drop, error) { return ownrules.Drops(h.Namespace) }

// EnsureMasquerade adds the masquerade rules for packets from the subnets of a bridge. DeleteRules is
// the inverse.
func (h *Host) EnsureMasquerade(bridge string, subnets ...netip.Prefix) error {
	return ownrules.EnsureMasquerade(h.Namespace, bridge, subnets...)
}

// DeleteRules deletes all rules of a bridge from our nftables tables.
func (h *Host) DeleteRules(bridge string) error { return ownrules.DeleteRules(h.Namespace, bridge) }

// EnsureForward adds the iptables rules that accept the packets of a bridge in FORWARD chains. Each
// element of families is AF_INET or AF_INET6. DeleteForward is the inverse.
func (h *Host) EnsureForward(bridge string, families ...int) error {
	return forward.Ensure(h.Namespace, bridge, families...)
}

// DeleteForward deletes the FORWARD rules of a bridge. If no other bridge has such rules, it also
// deletes the chain BRIDGEVETH-FORWARD and the jump to it.
func (h *Host) DeleteForward(bridge string) error { return forward.Delete(h.Namespace, bridge) }

// AcceptsForward reports whether every FORWARD chain of a family (AF_INET, AF_INET6) has the rules
// that accept the packets of a bridge, before any rule that drops them. It changes nothing.
func (h *Host) AcceptsForward(bridge string, family int) (bool, error) {
	return forward.Accepts(h.Namespace, bridge, family)
}

// BaseChain is a base chain on the forward hook.
type BaseChain = forward.BaseChain

// Owner is the program that created a chain.
type Owner = forward.Owner

// The known values of Owner.
const (
	OwnerUs        = forward.OwnerUs
	OwnerIPTables  = forward.OwnerIPTables
	OwnerLegacy    = forward.OwnerLegacy
	OwnerFirewalld = forward.OwnerFirewalld
	OwnerDocker    = forward.OwnerDocker
	OwnerUnknown   = forward.OwnerUnknown
)

// ForwardChains returns the base chains that forwarded packets of a family (AF_INET, AF_INET6)
// traverse, in the order of traversal. It changes nothing.
func (h *Host) ForwardChains(family int) ([]BaseChain, error) {
	return forward.Chains(h.Namespace, family)
}

// CheckFastPath returns ErrNoFlowtables if the kernel does not support FastPathOn. It changes
// nothing, but the kernel may load modules.
func (h *Host) CheckFastPath() error { return nft.CheckFlowtables(h.Namespace) }

// FastConnections returns the number of connections from or to an address that take the fast path now.
func (h *Host) FastConnections(address netip.Addr) (count int, err error) {
	// Offloaded reads all conntrack entries, of which there may be millions. A host without a
	// flowtable has no fast path, so FastConnections need not call Offloaded.
	exists, err := ownrules.HasFlowtable(h.Namespace, netns.FamilyOf(address))
	if !exists || err != nil {
		return 0, err
	}
	return conntrack.Offloaded(h.Namespace, address)
}

// ForgetConnections deletes the conntrack entries of connections from or to these addresses of
// containers.
func (h *Host) ForgetConnections(addresses []netip.Prefix) error {
	return conntrack.Forget(h.Namespace, addresses)
}

// CheckDenied returns ErrDenied if a chain that bridgeveth must not change drops packets of a network.
func (h *Host) CheckDenied(net *Network) error { return forward.CheckDenied(h.Namespace, net) }

// AttachedInterface is a container's interface that one of our veth pairs attaches to a CNI
// network.
type AttachedInterface = bridges.AttachedInterface

// AttachedInterfaces returns the containers' interfaces that our veth pairs attach to a CNI
// network, with their addresses.
func (h *Host) AttachedInterfaces(network string) ([]AttachedInterface, error) {
	return bridges.AttachedInterfaces(h.Namespace, network)
}

// IncompatibleChains returns the chains of other programs that have a rule which iptables (for
// AF_INET) or ip6tables (for AF_INET6) cannot read. The program then refuses to change the chain.
// The usual cause is that nft(8) has loaded a saved ruleset. IncompatibleChains changes nothing.
func (h *Host) IncompatibleChains(family int) ([]Chain, error) {
	return forward.IncompatibleChains(h.Namespace, family)
}

// RuleWatch receives an event for each change of the nftables ruleset of a namespace.
type RuleWatch = nft.RuleWatch

// WatchRules subscribes to changes of the nftables ruleset. RuleWatch.Close ends the subscription.
func (h *Host) WatchRules() (*RuleWatch, error) { return nft.WatchRules(h.Namespace) }
