package bridgeveth

import (
	"errors"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// gc is the verb GC (CNI specification 1.1.0, "GC"). It removes every attachment of the network
// that is not in the list of valid attachments. It continues after errors and returns all errors.
func gc(args *skel.CmdArgs) error {
	c, wrong := readConfig(args)
	if wrong != nil && c.Name == "" {
		return wrong
	}
	valid, err := attachment.Valid(c.Name, args)
	if err != nil {
		return err
	}
	host, err := setup.CurrentHost()
	if err != nil {
		return attachment.Error(err)
	}
	defer host.Close()
	err = host.Collect(c.Name, c.Bridge, valid)
	if errors.Is(err, setup.ErrNewer) {
		return attachment.Error(err) // the containers of a later release keep their addresses
	}
	ipam, failed := newDelegate(c, args, host)
	if failed == nil {
		failed = ipam.gc()
	}
	return attachment.Error(errors.Join(err, failed))
}
