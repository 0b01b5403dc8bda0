package agent

import (
	"net/netip"
	"slices"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/conflist"
	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// network returns the plan of the objects that all pods of the node share on the host: masquerade
// and its exceptions, FORWARD rules, forwarding, gateways. subnets contains the subnets of pods
// that were started before the ranges of the node changed.
func (a *Agent) network(values conflist.Values, subnets []attachment.Address) (*setup.Network, error) {
	conf, err := a.base.Plugin(values)
	if err != nil {
		return nil, err
	}
	var addresses []attachment.Address
	for _, pods := range values.Ranges { // the gateway is the same for every pod, because ipam-simple uses the first address of a range as the gateway
		gateway := pods.Addr().Next()
		addresses = append(addresses, attachment.Address{Prefix: netip.PrefixFrom(gateway.Next(), pods.Bits()), Gateway: gateway})
	}
	for _, s := range subnets {
		if !slices.Contains(values.Ranges, s.Masked()) {
			addresses = append(addresses, s)
		}
	}
	return attachment.NetworkOf(conf, addresses)
}

// ports returns the bridge ports of running pods. The key of the map is the name of the port, as
// setup.Attachment.Port returns it.
func (a *Agent) ports() (map[string]setup.FoundPort, error) {
	all, err := a.Host.Ports()
	ports := map[string]setup.FoundPort{}
	for _, p := range all {
		if p.Network == a.base.Name() && p.Bridge == a.base.Bridge() {
			ports[p.Key] = p
		}
	}
	return ports, err
}

// repair restores missing rules and gateways on a node with running pods. The next ADD would
// restore them too, but perhaps much later. Until then, the pods of a new node would not be in the
// exceptions of the masquerade, so packets from running pods to them would be masqueraded.
func (a *Agent) repair(network *setup.Network, r *result) error {
	missing, err := a.Host.Missing(network)
	if len(missing) == 0 || err != nil {
		return err
	}
	restored, err := a.Host.RepairNetwork(network)
	for _, what := range restored {
		r.changes = append(r.changes, "restore "+what)
	}
	return err
}

// acceptTransit adds FORWARD rules that accept packets which pass through the node to pods on other
// nodes, such as packets to a NodePort. Without these rules, a FORWARD chain may deny such packets.
// An error is only a warning, because the node's own pods do not need the rules.
func (a *Agent) acceptTransit(pods []netip.Prefix, r *result) {
	restored, err := a.Host.EnsureTransit(pods)
	for _, what := range restored {
		r.changes = append(r.changes, "restore "+what)
	}
	if err != nil {
		for _, e := range unwrap(err) {
			r.warn(e.Error())
		}
	}
}
