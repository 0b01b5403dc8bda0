package setup

import (
	"errors"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/ownrules"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/portlist"
)

// The functions of this file serve the plugin portmap, which publishes the host ports of a port
// that an earlier plugin of the chain has attached.

// PublishPort adds the host ports of an attached port, all or none, and restores what its
// network needs for them, as AttachPort does. Host ports that the port has already stay as they
// are. The host ports are also listed for other programs, see portlist.Add.
// UnpublishPort is the inverse. DetachPort deletes the host ports too, but not their listing.
func (h *Host) PublishPort(p *Port) error {
	lock, err := h.lockComplete(p.Network)
	if err != nil {
		return err
	}
	if ownrules.VerifyHostPorts(h.Namespace, p) != nil {
		err = ownrules.Publish(h.Namespace, p)
	}
	lock.Unlock()
	if err != nil {
		return err
	}
	if err := portlist.Add(h.Namespace, p); err != nil {
		return errors.Join(err, h.UnpublishPort(p.Attachment, p.HostPorts...))
	}
	return nil
}

// UnpublishPort deletes the host ports of an attachment, whether its port still exists or not.
// It is faster when the caller passes the host ports that it knows.
func (h *Host) UnpublishPort(a Attachment, known ...HostPort) error {
	gone := func(o ownrules.PortOwner) bool { return o.Port == a.Port() }
	return errors.Join(ownrules.Unpublish(h.Namespace, a, known), portlist.Remove(h.Namespace, gone))
}

// VerifyPublished compares a port and its network with what PublishPort makes. It changes
// nothing.
func (h *Host) VerifyPublished(p *Port) error {
	missing, err := h.missing(p.Network)
	return errors.Join(plan.Error(missing), err, ownrules.VerifyHostPorts(h.Namespace, p), portlist.Verify(h.Namespace, p))
}

// CollectPublished deletes the host ports of a network's attachments that are not in valid.
func (h *Host) CollectPublished(network string, valid []Attachment) error {
	gone := ownrules.Unlisted(network, valid)
	abandoned, err := ownrules.Published(h.Namespace, func(m ownrules.Mapping) bool { return gone(m.Owner) })
	return errors.Join(err, ownrules.DeleteMappings(h.Namespace, abandoned), portlist.Remove(h.Namespace, gone))
}
