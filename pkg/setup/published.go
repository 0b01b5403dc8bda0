package setup

import (
	"errors"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/elements"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/hostports"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/portlist"
)

// The functions in this file are for the plugin portmap. This plugin publishes host ports for a
// container that an earlier plugin of the same CNI configuration has attached.

// PublishPort adds the host ports of p, whose bridge port already exists. It adds all of them or
// none, and does not change host ports that exist already. First it restores the missing parts of
// the network, as AttachPort does. PublishPort also adds the host ports to a list that other
// programs read (see portlist.Add).
//
// UnpublishPort is the inverse. DetachPort deletes the host ports too, but does not change the
// list.
func (h *Host) PublishPort(p *Port) error {
	lock, err := h.lockComplete(p.Network)
	if err != nil {
		return err
	}
	if hostports.Verify(h.Namespace, p) != nil {
		err = hostports.Publish(h.Namespace, p)
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

// UnpublishPort deletes the host ports of an attachment, even if its bridge port does not exist any
// more. The parameter known is as in DetachPort.
func (h *Host) UnpublishPort(a Attachment, known ...HostPort) error {
	gone := func(o elements.Owner) bool { return o.Port == a.Port() }
	return errors.Join(hostports.Unpublish(h.Namespace, a, known), portlist.Remove(h.Namespace, gone))
}

// VerifyPublished checks that the network, the host ports of p and their entries in the list of
// host ports exist as planned. It changes nothing. The error names each difference.
func (h *Host) VerifyPublished(p *Port) error {
	missing, err := h.missing(p.Network)
	return errors.Join(plan.Error(missing), err, hostports.Verify(h.Namespace, p), portlist.Verify(h.Namespace, p))
}

// CollectPublished deletes the host ports of all attachments of this CNI network, except the valid
// attachments.
func (h *Host) CollectPublished(network string, valid []Attachment) error {
	gone := elements.Unlisted(network, valid)
	abandoned, err := hostports.Published(h.Namespace, func(m hostports.Mapping) bool { return gone(m.Owner) })
	return errors.Join(err, hostports.Delete(h.Namespace, abandoned), portlist.Remove(h.Namespace, gone))
}
