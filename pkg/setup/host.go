package setup

import (
	"net/netip"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/forward"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// Namespace is an open network namespace with its netlink sockets. Each socket is opened at its
// first use. Only one goroutine at a time may use a Namespace.
type Namespace = netns.Namespace

// Host is the network namespace that has the bridges and the rules of their networks.
type Host struct{ *Namespace }

// CurrentHost returns the calling thread's namespace as a Host.
func CurrentHost() (*Host, error) {
	ns, err := netns.Current()
	if err != nil {
		return nil, err
	}
	return &Host{ns}, nil
}

// OpenNamespace returns the namespace at path (/run/netns/NAME, /proc/PID/ns/net). Its errors
// wrap ErrNoNamespace or ErrNotNamespace.
func OpenNamespace(path string) (*Namespace, error) { return netns.Open(path) }

// DeleteNamed deletes the name of a namespace that EnsureNamed or ip-netns(8) made. The kernel
// deletes the namespace with its last name, process and socket.
func DeleteNamed(name string) error { return netns.DeleteNamed(name) }

type (
	// Attachment identifies one interface of one container on one network.
	Attachment = plan.Attachment
	// Network is what the containers on one bridge share.
	Network = plan.Network
	// Port is what connects one container to a network.
	Port = plan.Port
	// Route is a route of a container.
	Route = plan.Route
	// HostPort is a port of the host that leads to a port of a container.
	HostPort = plan.HostPort
	// PortTakenError is returned for a host port that belongs to another attachment.
	PortTakenError = plan.PortTakenError
	// Limit is a bandwidth limit in one direction.
	Limit = plan.Limit
	// Bandwidth is the bandwidth limits of a port, in both directions.
	Bandwidth = plan.Bandwidth
	// VLANs are the VLANs of the ports of a network.
	VLANs = plan.VLANs
	// VLANRange is a range of VLAN IDs, both ends included.
	VLANRange = plan.VLANRange
	// Guard selects which source addresses of a port are checked.
	Guard = plan.Guard
	// Forward selects how packets are accepted in FORWARD chains that deny them.
	Forward = plan.Forward
	// Ingress selects who may open connections to containers.
	Ingress = plan.Ingress
	// Conflict selects what happens to another address of the bridge.
	Conflict = plan.Conflict
	// Chain names an nftables chain of somebody else.
	Chain = plan.Chain
)

// Limits of values, and the choices of each kind.
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

	IngressOpen       = plan.IngressOpen
	IngressSameBridge = plan.IngressSameBridge
	IngressIsolated   = plan.IngressIsolated

	ConflictError   = plan.ConflictError
	ConflictReplace = plan.ConflictReplace
	ConflictAdd     = plan.ConflictAdd
)

// Errors of the packages below that a caller may act upon.
var (
	ErrNoNamespace        = netns.ErrNoNamespace
	ErrNotNamespace       = netns.ErrNotNamespace
	ErrTaken              = rtnl.ErrTaken
	ErrNotBridge          = bridges.ErrNotBridge
	ErrRenamed            = bridges.ErrRenamed
	ErrAddressConflict    = bridges.ErrAddressConflict
	ErrBridgeFull         = bridges.ErrBridgeFull
	ErrNoVLANs            = bridges.ErrNoVLANs
	ErrNoIPTables         = forward.ErrNoIPTables
	ErrNoFirewalld        = forward.ErrNoFirewalld
	ErrStrictForwardPorts = forward.ErrStrictForwardPorts
	ErrNoChain            = forward.ErrNoChain
	ErrDenied             = forward.ErrDenied
	ErrTablesGone         = ownrules.ErrTablesGone
)

// ParseForward reads a Forward by its name: auto, iptables, firewalld, sysctl or none.
func ParseForward(name string) (Forward, error) { return plan.ParseForward(name) }

// ParseIngress reads an Ingress by its name: open, same-bridge or isolated.
func ParseIngress(name string) (Ingress, error) { return plan.ParseIngress(name) }

// ParseConflict reads a Conflict by its name: error, replace or add.
func ParseConflict(name string) (Conflict, error) { return plan.ParseConflict(name) }

// ParseChain reads a Chain: its family, its table and its name, with spaces between.
func ParseChain(text string) (Chain, error) { return plan.ParseChain(text) }

// ParseAttachment reads the alias of a link. ok is false for a link that is not ours.
func ParseAttachment(alias string) (a Attachment, ok bool) { return plan.ParseAttachment(alias) }

// ProgramPath looks for a program in the folders first, in PATH, and in the sbin folders. It
// returns the error of the last folder.
func ProgramPath(name string, first ...string) (path string, err error) {
	return forward.ProgramPath(name, first...)
}

// Addresses returns the addresses of the interface called name, without IPv6 link-local
// addresses. It returns none for an interface that does not exist.
func Addresses(ns *Namespace, name string) ([]netip.Prefix, error) {
	return rtnl.AddressesOf(ns, name)
}

// RaiseLoopback sets lo up and returns its addresses: the kernel then adds 127.0.0.1 and ::1.
// LowerLoopback is the inverse.
func RaiseLoopback(ns *Namespace) ([]netip.Prefix, error) { return rtnl.RaiseLoopback(ns) }

// LowerLoopback sets lo down.
func LowerLoopback(ns *Namespace) error { return rtnl.LowerLoopback(ns) }

// VerifyLoopback returns an error if lo is down.
func VerifyLoopback(ns *Namespace) error { return rtnl.VerifyLoopback(ns) }

// UplinkMTU returns the smallest MTU, in bytes, of the links of the default routes.
func (h *Host) UplinkMTU() (mtu int, err error) { return rtnl.UplinkMTU(h.Namespace) }

// EnsureBridge creates the bridge called name if there is none, and sets it up. mtu is in bytes; 0
// is the kernel's default.
func (h *Host) EnsureBridge(name string, mtu int) error {
	return bridges.EnsureBridge(h.Namespace, name, mtu)
}

// RenamedTo returns the name that a bridge made as name has now, "" if no bridge of ours was renamed
// so.
func (h *Host) RenamedTo(name string) (string, error) { return bridges.RenamedTo(h.Namespace, name) }

// FoundPort is a port of ours on the host.
type FoundPort = bridges.FoundPort

// Ports returns all ports of ours on the host.
func (h *Host) Ports() ([]FoundPort, error) { return bridges.Ports(h.Namespace) }

// HasPort reports whether an attachment has a port.
func (h *Host) HasPort(a Attachment) (bool, error) { return bridges.HasPort(h.Namespace, a) }

// BridgeOf returns the name of the bridge that an attachment's port is on, "" if the attachment
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

// HostPorts returns the host ports of all containers as text, such as "tcp *:8080", by the name
// of the port that each leads to.
func (h *Host) HostPorts() (map[string][]string, error) { return ownrules.HostPorts(h.Namespace) }

// EnsureMasquerade makes the rules that replace the source address of packets from a bridge's
// subnets by the address of the interface by which they leave the host. DeleteRules is the
// inverse.
func (h *Host) EnsureMasquerade(bridge string, subnets ...netip.Prefix) error {
	return ownrules.EnsureMasquerade(h.Namespace, bridge, subnets...)
}

// DeleteRules deletes everything of a bridge in our nftables tables.
func (h *Host) DeleteRules(bridge string) error { return ownrules.DeleteRules(h.Namespace, bridge) }

// EnsureForward makes the iptables rules that accept packets of a bridge in FORWARD chains that
// deny them. DeleteForward is the inverse.
func (h *Host) EnsureForward(bridge string, families ...int) error {
	return forward.Ensure(h.Namespace, bridge, families...)
}

// DeleteForward deletes the FORWARD rules of a bridge. With the last rule it deletes our chain and
// the jump to it.
func (h *Host) DeleteForward(bridge string) error { return forward.Delete(h.Namespace, bridge) }

// AcceptsForward reports whether every FORWARD chain of a family (AF_INET, AF_INET6) has the rules
// of a bridge in their place. It changes nothing.
func (h *Host) AcceptsForward(bridge string, family int) (bool, error) {
	return forward.Accepts(h.Namespace, bridge, family)
}

// BaseChain is a base chain on the forward hook.
type BaseChain = forward.BaseChain

// Owner is the program that made a chain.
type Owner = forward.Owner

// The known owners of base chains.
const (
	OwnerUs        = forward.OwnerUs
	OwnerIPTables  = forward.OwnerIPTables
	OwnerLegacy    = forward.OwnerLegacy
	OwnerFirewalld = forward.OwnerFirewalld
	OwnerDocker    = forward.OwnerDocker
	OwnerUnknown   = forward.OwnerUnknown
)

// ForwardChains returns the base chains that forwarded packets of a family (AF_INET, AF_INET6)
// traverse, in order. It changes nothing.
func (h *Host) ForwardChains(family int) ([]BaseChain, error) {
	return forward.Chains(h.Namespace, family)
}

// CheckDenied returns ErrDenied if a chain that we must not change drops packets of a network.
func (h *Host) CheckDenied(net *Network) error { return forward.CheckDenied(h.Namespace, net) }

// AttachedInterface is an interface of a container that is attached to a network.
type AttachedInterface = bridges.AttachedInterface

// AttachedInterfaces returns the interfaces that our veth pairs attach to a network, with their addresses
// in the container.
func (h *Host) AttachedInterfaces(network string) ([]AttachedInterface, error) {
	return bridges.AttachedInterfaces(h.Namespace, network)
}

// IncompatibleChains returns the chains of others in a family (AF_INET, AF_INET6) that iptables
// refuses to change, because nft(8) has loaded them from a saved ruleset. It changes nothing.
func (h *Host) IncompatibleChains(family int) ([]Chain, error) {
	return forward.IncompatibleChains(h.Namespace, family)
}

// RuleWatch receives a notification for each change of the nftables ruleset of a namespace.
type RuleWatch = nft.RuleWatch

// WatchRules subscribes to changes of the nftables ruleset. RuleWatch.Close ends the subscription.
func (h *Host) WatchRules() (*RuleWatch, error) { return nft.WatchRules(h.Namespace) }
