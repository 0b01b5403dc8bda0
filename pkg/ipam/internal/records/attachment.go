package records

import (
	"bytes"
	"fmt"
	"time"

	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/boltfile"
	"github.com/bridgeveth/bridgeveth/pkg/ipam/internal/leases"
)

// attachmentKey returns an attachment's key in the network's bucket "attachments".
func attachmentKey(a leases.Attachment) []byte { return []byte(a.Container + "\x00" + a.Interface) }

// attachment is the inverse of attachmentKey.
func (n *Network) attachment(key []byte) (leases.Attachment, error) {
	container, ifname, ok := bytes.Cut(key, []byte{0})
	if !ok {
		return leases.Attachment{}, fmt.Errorf("%w: %q is not an attachment", boltfile.ErrDamaged, key)
	}
	return leases.Attachment{Network: n.Name, Container: string(container), Interface: string(ifname)}, nil
}

// Held returns the leases of an attachment, in the order of the sets in its request.
func (n *Network) Held(a leases.Attachment) (held []Lease, err error) {
	list, err := DecodeAddresses(n.attachments.Get(attachmentKey(a)))
	for _, address := range list {
		l, _, err := n.Lease(address)
		if err != nil {
			return nil, err
		}
		if l.Attachment != a || l.Kept() {
			return nil, fmt.Errorf("%w: %s is listed for %s and leased to %s", boltfile.ErrDamaged, address, a.Container, l.Container)
		}
		held = append(held, l)
	}
	return held, err
}

// SetHeld records which addresses an attachment holds. It does not write the leases of these
// addresses. PutLease writes a lease.
func (n *Network) SetHeld(a leases.Attachment, held []Lease) error {
	if len(held) == 0 {
		return n.attachments.Delete(attachmentKey(a))
	}
	return n.attachments.Put(attachmentKey(a), encodeAddresses(held))
}

// EachAttachment calls visit with every attachment that holds a lease.
func (n *Network) EachAttachment(visit func(leases.Attachment)) error {
	return n.attachments.ForEach(func(k, _ []byte) error {
		a, err := n.attachment(k)
		if err == nil {
			visit(a)
		}
		return err
	})
}

// CheckAttachments returns ErrDamaged if the record of an attachment lists an address that is not
// leased to it.
func (n *Network) CheckAttachments() error {
	return n.attachments.ForEach(func(k, _ []byte) error {
		a, err := n.attachment(k)
		if err == nil {
			_, err = n.Held(a)
		}
		return err
	})
}

// Release ends all leases of the attachments. It keeps a sticky address for its name, and frees all
// other addresses.
func (n *Network) Release(attachments ...leases.Attachment) error {
	now := time.Now().Round(0)
	for _, a := range attachments {
		held, err := n.Held(a)
		if err != nil {
			return err
		}
		for _, l := range held {
			kept, err := n.keep(l, now)
			if err == nil && !kept {
				err = n.Free(l.Address.Addr())
			}
			if err != nil {
				return err
			}
		}
		if err := n.attachments.Delete(attachmentKey(a)); err != nil {
			return err
		}
	}
	return nil
}

// TakeOver adds leases of addresses that another program has given out. If an address already has a
// lease, TakeOver does not change it.
func (n *Network) TakeOver(found []Lease) error {
	added := map[leases.Attachment][]Lease{}
	for _, l := range found {
		if _, leased, err := n.Lease(l.Address.Addr()); err != nil {
			return err
		} else if leased {
			continue
		}
		added[l.Attachment] = append(added[l.Attachment], l)
		if err := n.OccupyAny(l.Address.Addr()); err != nil {
			return err
		}
		if err := n.PutLease(l); err != nil {
			return err
		}
	}
	for a, more := range added {
		held, err := n.Held(a)
		if err != nil {
			return err
		}
		if err := n.SetHeld(a, append(held, more...)); err != nil {
			return err
		}
	}
	return nil
}
