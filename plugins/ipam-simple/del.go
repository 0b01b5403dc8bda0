package ipamsimple

import (
	"errors"
	"io/fs"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
)

// Del frees the addresses of the attachment. It does not read the ranges, which may have changed
// since ADD.
func (p Plugin) Del(args *skel.CmdArgs) error {
	c, err := ipamconfig.ReadNetwork(args.StdinData)
	if err != nil {
		return err
	}
	s, err := p.openToFree(c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no store, so no leases
	}
	return use(c, s, err, func() error { return s.Release(c.Attachment(args)) })
}
