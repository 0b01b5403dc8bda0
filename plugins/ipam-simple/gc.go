package ipamsimple

import (
	"errors"
	"io/fs"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// GC frees the leases of all attachments that are not in the list of valid attachments. It does not
// read the ranges, which may have changed since ADD.
func (p Plugin) GC(args *skel.CmdArgs) error {
	c, err := ipamconfig.ReadNetwork(args.StdinData)
	if err != nil {
		return err
	}
	listed, err := plugin.ValidAttachments(args.StdinData)
	if err != nil {
		return err
	}
	var valid []ipam.Attachment
	for _, a := range listed {
		valid = append(valid, ipam.Attachment{Network: c.Name, Container: a.ContainerID, Interface: a.IfName})
	}
	s, err := p.openToFree(c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no store, so no leases
	}
	return use(c, s, err, func() error { return s.ReleaseExcept(c.Name, valid) })
}
