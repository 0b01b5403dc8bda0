package doctor

import (
	"fmt"
	"net/netip"

	"github.com/bridgeveth/bridgeveth/pkg/doctor/internal/probe"
)

// lostBeyond returns a text about a request that was lost beyond the host, and advice about what to
// check. If the target is a pod on another node, lostBeyond sends requests from the host to that
// node, outside of the tunnel and through the tunnel.
func (p *proof) lostBeyond() (what, advice string) {
	what = "the request left the host, and no answer came back"
	switch {
	case !p.Far.IsValid():
		return what, "check that the address exists beyond this host and answers pings"
	case !p.hostReaches(p.Far):
		return fmt.Sprintf("%s; %s, the pod's node, does not answer this host either", what, p.Far), "check that this node is up, and the network between the nodes"
	case p.FarTunnel.IsValid() && !p.hostReaches(p.FarTunnel):
		return fmt.Sprintf("%s; %s, the pod's node, answers this host, but not through the tunnel", what, p.Far),
			"check that firewalls between the nodes accept the UDP port of the tunnel, and run bvctl node on the pod's node"
	}
	return fmt.Sprintf("%s; %s, the pod's node, answers this host", what, p.Far), "run bvctl doctor on the pod's node, from the pod to an address of this host"
}

// hostReaches reports whether an address answers when the host itself sends a request.
func (p *proof) hostReaches(to netip.Addr) bool {
	from := netip.IPv4Unspecified()
	if to.Is6() {
		from = netip.IPv6Unspecified()
	}
	e, err := probe.NewEcho(p.Host.Namespace, from, to)
	if err != nil {
		return false
	}
	defer e.Close()
	for range 3 {
		if answered, _ := e.Ask(probe.Smallest); answered { // an error means that the request was not sent
			return true
		}
	}
	return false
}
