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

// Namespace is a network namespace, with netlink sockets in it that are opened at their first
// use. One goroutine at a time uses it.
type Namespace = netns.Namespace

// Host is the network namespace that has the bridges, and the rules of their networks.
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

// DeleteNamed removes the name of a namespace made by EnsureNamed or ip-netns(8). The namespace
// goes with its last name, process and socket.
func DeleteNamed(name string) error { return netns.DeleteNamed(name) }

type (
	// Attachment names one interface of one container on one network.
	Attachment = plan.Attachment
	// Network is what the containers on one bridge share.
	Network = plan.Network
	// Port is a container's place on a network.
	Port = plan.Port
	// Route is a route of a container.
	Route = plan.Route
	// HostPort publishes a port of a container on the host.
	HostPort = plan.HostPort
	// PortTakenError says that a host port is another attachment's.
	PortTakenError = plan.PortTakenError
	// Limit is a limit of bandwidth, in one direction.
	Limit = plan.Limit
	// Bandwidth is the limits of a port.
	Bandwidth = plan.Bandwidth
	// VLANs are those that the ports of a network are in.
	VLANs = plan.VLANs
	// VLANRange is a run of VLANs, both ends included.
	VLANRange = plan.VLANRange
	// Guard says under which addresses a port may send.
	Guard = plan.Guard
	// Forward says how packets get past FORWARD chains that deny them.
	Forward = plan.Forward
	// Ingress says who may open connections to containers.
	Ingress = plan.Ingress
	// Conflict says what becomes of another address of the bridge.
	Conflict = plan.Conflict
	// Chain is a chain of nf_tables that somebody else wrote.
	Chain = plan.Chain
)

// Limits and choices of what should be there.
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

// The errors that a caller may act upon, beside those of this package's own files.
var (
	ErrNoNamespace        = netns.ErrNoNamespace
	ErrNotNamespace       = netns.ErrNotNamespace
	ErrTaken              = rtnl.ErrTaken
	ErrNotBridge          = bridges.ErrNotBridge
	ErrAddressConflict    = bridges.ErrAddressConflict
	ErrBridgeFull         = bridges.ErrBridgeFull
	ErrNoVLANs            = bridges.ErrNoVLANs
	ErrNoIPTables         = forward.ErrNoIPTables
	ErrNoFirewalld        = forward.ErrNoFirewalld
	ErrStrictForwardPorts = forward.ErrStrictForwardPorts
	ErrNoChain            = forward.ErrNoChain
	ErrDenied             = forward.ErrDenied
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

// ProgramPath looks for a program in the folders given, in PATH, and in the sbin folders. The
// error is that of the last place.
func ProgramPath(name string, first ...string) (path string, err error) {
	return forward.ProgramPath(name, first...)
}

// Addresses lists those of the interface called name, without the link-local ones of IPv6. An
// interface that does not exist has none.
func Addresses(ns *Namespace, name string) ([]netip.Prefix, error) {
	return rtnl.AddressesOf(ns, name)
}

// RaiseLoopback sets lo up, by which the kernel gives it 127.0.0.1 and ::1, and returns its
// addresses. LowerLoopback is its inverse.
func RaiseLoopback(ns *Namespace) ([]netip.Prefix, error) { return rtnl.RaiseLoopback(ns) }

// LowerLoopback sets lo down.
func LowerLoopback(ns *Namespace) error { return rtnl.LowerLoopback(ns) }

// VerifyLoopback reports whether lo is up.
func VerifyLoopback(ns *Namespace) error { return rtnl.VerifyLoopback(ns) }

// UplinkMTU is the least MTU, in bytes, of the links that the default routes leave by.
func (h *Host) UplinkMTU() (mtu int, err error) { return rtnl.UplinkMTU(h.Namespace) }

// EnsureBridge makes the bridge called name, if it is absent, and sets it up: see bridges.Ensure.
func (h *Host) EnsureBridge(name string, mtu int) error {
	return bridges.EnsureBridge(h.Namespace, name, mtu)
}

// FoundPort is a port of ours that is on the host.
type FoundPort = bridges.FoundPort

// Ports lists the ports of ours on the host.
func (h *Host) Ports() ([]FoundPort, error) { return bridges.Ports(h.Namespace) }

// HasPort reports whether an attachment has a port.
func (h *Host) HasPort(a Attachment) bool { return bridges.HasPort(h.Namespace, a) }

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

// HostPorts lists the host ports of all containers in words, each once, by the Port of the
// attachment that they lead to.
func (h *Host) HostPorts() (map[string][]string, error) { return ownrules.HostPorts(h.Namespace) }

// EnsureMasquerade gives packets from a bridge's subnets the address of the interface that they
// leave the host by. DeleteRules is its inverse.
func (h *Host) EnsureMasquerade(bridge string, subnets ...netip.Prefix) error {
	return ownrules.EnsureMasquerade(h.Namespace, bridge, subnets...)
}

// DeleteRules takes back all that a bridge has in our tables of nf_tables.
func (h *Host) DeleteRules(bridge string) error { return ownrules.DeleteRules(h.Namespace, bridge) }

// EnsureForward lets packets of a bridge past FORWARD chains that deny them, by the rules of
// iptables. DeleteForward is its inverse.
func (h *Host) EnsureForward(bridge string, families ...int) error {
	return forward.Ensure(h.Namespace, bridge, families...)
}

// DeleteForward takes back the rules of a bridge and, with the last of them, our chain and the
// jump to it.
func (h *Host) DeleteForward(bridge string) error { return forward.Delete(h.Namespace, bridge) }

// AcceptsForward reports whether every FORWARD chain of a family has the rules of a bridge, where
// they belong. It changes nothing.
func (h *Host) AcceptsForward(bridge string, family int) (bool, error) {
	return forward.Accepts(h.Namespace, bridge, family)
}

// BaseChain is a chain on the forward hook.
type BaseChain = forward.BaseChain

// Owner says whose a chain is.
type Owner = forward.Owner

// The owners that a caller tells apart.
const (
	OwnerUs        = forward.OwnerUs
	OwnerIPTables  = forward.OwnerIPTables
	OwnerLegacy    = forward.OwnerLegacy
	OwnerFirewalld = forward.OwnerFirewalld
	OwnerDocker    = forward.OwnerDocker
	OwnerUnknown   = forward.OwnerUnknown
)

// ForwardChains lists the chains that packets of a family (AF_INET, AF_INET6) pass where they
// are forwarded, in their order. It changes nothing.
func (h *Host) ForwardChains(family int) ([]BaseChain, error) {
	return forward.Chains(h.Namespace, family)
}

// CheckDenied returns ErrDenied where packets of a network are dropped that only somebody else
// can let pass.
func (h *Host) CheckDenied(net *Network) error { return forward.CheckDenied(h.Namespace, net) }

// Inhabitant is a container's interface that is attached to a network.
type Inhabitant = bridges.Inhabitant

// Inhabitants lists what is attached to a network by veth pairs of ours, with the addresses at the
// containers' ends.
func (h *Host) Inhabitants(network string) ([]Inhabitant, error) {
	return bridges.Inhabitants(h.Namespace, network)
}

// IncompatibleChains lists the chains of others in a family (AF_INET, AF_INET6) that iptables
// refuses, because nft(8) has loaded a saved ruleset. It changes nothing.
func (h *Host) IncompatibleChains(family int) ([]Chain, error) {
	return forward.IncompatibleChains(h.Namespace, family)
}

// RuleWatch hears of changes of a namespace's rules in nf_tables.
type RuleWatch = nft.RuleWatch

// WatchRules starts to listen for changes of nf_tables. Close ends it.
func (h *Host) WatchRules() (*RuleWatch, error) { return nft.WatchRules(h.Namespace) }
