package checks

import (
	"net/netip"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// Path is the path of a packet from container A to B. B is another container, the host, or an
// address beyond the host.
type Path struct {
	*report.Report
	*Snapshot
	Host *setup.Host
	A, B *End
	// From and To are the addresses of the packet. From is not valid if A has no address. To is not
	// valid if B has no address.
	From, To  netip.Addr
	PodRanges []netip.Prefix // of the pods on all nodes
	AskAgent  AgentAsker

	Own    bool   // To is an address of A itself
	Local  bool   // To is an address of the host
	Routed bool   // the host routes between A and B
	Out    string // the link by which the host routes to B; "" until CheckHostRoute has found it

	// Filtered reports whether br_netfilter makes bridged packets traverse the FORWARD chains.
	// CheckBridge sets the field.
	Filtered bool
	// Refused reports whether a strict rp_filter on the bridge drops the packet. CheckReturnPath
	// and CheckHostRoute set the field.
	Refused bool
	// Far is the address of the node that has the target. FarTunnel is the address of that node's
	// VXLAN device. CheckNode sets both fields. An address is not valid if there is no such node or
	// no tunnel.
	Far, FarTunnel netip.Addr

	asked bool   // the agent on this host was asked
	agent *agent // its answer, or nil
}

// Containers returns container A, and also B if B is another container.
func (p *Path) Containers() []*End {
	if p.B.Namespace == nil || p.B == p.A {
		return []*End{p.A}
	}
	return []*End{p.A, p.B}
}

// Beyond reports whether the target is outside of the host: an address of neither the host nor one
// of its containers.
func (p *Path) Beyond() bool { return p.B.Namespace == nil && !p.Local && !p.Own }

// Is4 reports whether the packet is an IPv4 packet.
func (p *Path) Is4() bool { return p.From.Is4() }

// SetPlace sets the fields Own, Local and Routed, which say where the target is.
func (p *Path) SetPlace() {
	p.Own = p.To.IsLoopback() || p.A == p.B || p.Has(p.A.Namespace, p.To)
	p.Local = !p.Own && p.Has(p.Host.Namespace, p.To)
	p.Routed = !p.Own && !p.Local && p.A.Bridge != p.B.Bridge && (p.B.Namespace != nil || !p.onBridge())
}

// onBridge reports whether the host reaches the target through A's bridge without a gateway. The
// target is then a container of another plugin, or another machine.
func (p *Path) onBridge() bool {
	r, err := kernel.RouteTo(p.Host.Namespace, p.To, netip.Addr{}, "")
	return err == nil && !r.Gateway.IsValid() && r.Link == p.A.Bridge
}

// familyName returns "IPv4" if is4 is true, otherwise "IPv6".
func familyName(is4 bool) string { return map[bool]string{true: "IPv4", false: "IPv6"}[is4] }

// familyOption returns the option of ip(8) for the family of an address.
func familyOption(a netip.Addr) string { return map[bool]string{true: "-4", false: "-6"}[a.Is4()] }
