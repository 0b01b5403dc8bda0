package setup

import (
	"errors"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// DetachPort deletes a port, wherever its other end is, with its host ports. Port.ExistingLink
// is taken off the bridge instead. With the last port of the bridge, everything of the network
// is deleted. DetachPort is faster when the caller passes the host ports that it knows.
func (h *Host) DetachPort(a Attachment, bridge string, known ...HostPort) error {
	on, err := h.Unplug(a, known...)
	return errors.Join(err, h.ReleaseNetwork(bridge, on))
}

// Unplug is DetachPort without deleting the network. It returns the bridge that the port was
// on, "" if none. A caller that runs on has a child process to reap, see rtnl/removal.go.
func (h *Host) Unplug(a Attachment, known ...HostPort) (bridge string, err error) {
	published := ownrules.Unpublish(h.Namespace, a, known)
	bridge, err = h.removePort(a.Port())
	return bridge, errors.Join(published, err, ownrules.UnguardPort(h.Namespace, a.Port()))
}

// removePort deletes a port with its IFB, or takes an existing link off its bridge. It returns
// the name of that bridge, "" if none. A port that does not exist is no error.
func (h *Host) removePort(name string) (bridge string, err error) {
	l, err := rtnl.ByName(h.Namespace, name)
	if err != nil && !rtnl.Absent(err) {
		return "", err
	}
	br, err := bridges.BridgeOf(h.Namespace, l)
	if err != nil {
		return "", err
	}
	var b netns.Batch
	bridges.KeepMACBeforeLeave(&b, br, l)
	if l.Index == 0 || l.Name == name {
		rtnl.Delete(&b, plan.IFBOf(name)) // most ports have no IFB; the attempt costs microseconds
		if err := h.Send(b); err != nil || l.Index == 0 {
			return br.Name, err
		}
		return br.Name, rtnl.RemoveLink(h.Namespace, l)
	}
	return br.Name, h.removeExisting(&b, l, name)
}

// removeRemains deletes the IFB and the guard of a port that does not exist any more. It leaves
// host ports: finding them takes a dump of the whole map.
func (h *Host) removeRemains(port string) error {
	var b netns.Batch
	rtnl.Delete(&b, plan.IFBOf(port))
	return errors.Join(h.Send(b), ownrules.UnguardPort(h.Namespace, port))
}
