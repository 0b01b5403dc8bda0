package checks

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/kernel"
	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/report"
)

// AddNoNodeRoute adds a station if the target is a pod on another node and the host has no route to
// the pod except the default route. The station has the command that adds the route. err is the
// kernel's error for the lookup of the host's route, or nil if the kernel found a route.
// AddNoNodeRoute returns true if it added the station.
func (p *Path) AddNoNodeRoute(err error) bool {
	pods, ok := p.podRange()
	if !ok || !p.Beyond() || !p.Routed || err != nil && !errors.Is(err, unix.ENETUNREACH) {
		return false
	}
	what := "no route to it"
	if err == nil {
		if !kernel.OnlyDefault(p.Host.Namespace, p.To, p.From, p.A.Bridge) {
			return false
		}
		what = "only the default route to it, by " + p.Out
	}
	if p.AskAgent != nil && kernel.HasAgent(p.Host.Namespace) {
		p.addNoAgentRoute(p.agentOfHost().peerOf(p.To), what)
		return true
	}
	own, _ := p.A.Address(p.To.Is4())
	p.Advise("route of the host", fmt.Sprintf("%s route add %s via NODE, where NODE is the address of the pod's node", report.IP(p.To), netip.PrefixFrom(p.To, own.Bits()).Masked()),
		"%s is the address of a pod (masqExclude %s), and the host has %s", p.To, pods, what)
	return true
}

// podRange returns the range in PodRanges that contains the target's address.
func (p *Path) podRange() (pods netip.Prefix, ok bool) {
	for _, pods := range p.PodRanges {
		if pods.Contains(p.To) {
			return pods, true
		}
	}
	return pods, false
}
