package setup

import (
	"errors"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/hostports"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// DetachPort deletes the bridge port and the host ports of an attachment. If the bridge port is a
// link of another plugin (Port.ExistingLink), DetachPort only removes the link from the bridge. If
// the bridge then has no port of ours, DetachPort also releases the network (see ReleaseNetwork).
//
// The parameter known is optional. If it contains all host ports of the attachment, DetachPort is
// faster, because it need not read the host ports of all containers.
func (h *Host) DetachPort(a Attachment, bridge string, known ...HostPort) error {
	on, err := h.Unplug(a, known...)
	return errors.Join(err, h.ReleaseNetwork(bridge, on))
}

// Unplug deletes a port as DetachPort does, but does not release the network. It returns the name
// of the bridge that the port was on, or "" if the port was on no bridge. Unplug starts a child
// process that outlives the call, so a long-running caller must reap this child (see
// rtnl/removal.go).
func (h *Host) Unplug(a Attachment, known ...HostPort) (bridge string, err error) {
	if bridge, err = h.removePort(a.Port()); errors.Is(err, ErrNewer) {
		return "", err
	}
	// The host ports come after the port: another process may restore the host ports as long as the
	// port exists (see Host.Known).
	return bridge, errors.Join(err, hostports.Unpublish(h.Namespace, a, known), ownrules.UnguardPort(h.Namespace, a.Port()))
}

// removePort deletes a bridge port and its IFB, the link that limits the traffic from the
// container. If the port is a link of another plugin (Port.ExistingLink), removePort only removes
// the link from its bridge. It returns the name of the bridge, or "" if the port was on no bridge.
// A port that does not exist is no error.
func (h *Host) removePort(name string) (bridge string, err error) {
	l, err := rtnl.ByName(h.Namespace, name)
	if err != nil && !rtnl.Absent(err) {
		return "", err
	}
	br, err := bridges.BridgeOf(h.Namespace, l)
	if err != nil {
		return "", err
	}
	if err := ownrules.LeaveFastPath(h.Namespace, func(device string) bool { return device == name || device == l.Name }); err != nil {
		return "", err
	}
	var b netns.Batch
	bridges.KeepMACBeforeLeave(&b, br, l)
	if l.Index == 0 || l.Name == name {
		rtnl.Delete(&b, plan.IFBOf(name)) // most ports have no IFB, but this request takes only microseconds
		if err := h.Send(b); err != nil || l.Index == 0 {
			return br.Name, err
		}
		return br.Name, rtnl.RemoveLink(h.Namespace, l)
	}
	return br.Name, h.removeExisting(&b, l, name)
}

// removeRemains deletes the guard and the IFB (see plan.IFBOf) of a port that does not exist any
// more, and takes the port out of the flowtables. It does not delete host ports, because it would
// have to read the whole nftables map to find them.
func (h *Host) removeRemains(port string) error {
	var b netns.Batch
	rtnl.Delete(&b, plan.IFBOf(port))
	return errors.Join(h.Send(b), ownrules.UnguardPort(h.Namespace, port), ownrules.LeaveFastPath(h.Namespace, func(device string) bool { return device == port }))
}
