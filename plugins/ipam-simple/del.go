package ipamsimple

import (
	"errors"
	"io/fs"

	"github.com/containernetworking/cni/pkg/skel"
)

// Del frees the addresses of the attachment. It does not read the ranges, which may have changed
// since ADD.
func (p Plugin) Del(args *skel.CmdArgs) error {
	c, err := readNetwork(args.StdinData)
	if err != nil {
		return err
	}
	s, err := p.openToFree(c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no store, so no leases
	}
	return c.use(s, err, func() error { return s.Release(c.attachment(args)) })
}
