package bridgeveth

import (
	"errors"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// gc is the verb GC (CNI specification 1.1.0, "GC"): it removes every attachment
// of the network that is not in the valid list, goes on after errors, and
// reports them all.
func gc(args *skel.CmdArgs) error {
	c, wrong := readConfig(args)
	if wrong != nil && c.Name == "" {
		return wrong
	}
	listed, err := plugin.ValidAttachments(args.StdinData)
	if err != nil {
		return err
	}
	host, err := setup.CurrentNamespace()
	if err != nil {
		return Error(err)
	}
	defer host.Close()
	var valid []setup.Attachment
	for _, a := range listed {
		valid = append(valid, setup.Attachment{Network: c.Name, Container: a.ContainerID, Interface: a.IfName})
	}
	err = host.Collect(c.Name, c.Bridge, valid)
	ipam, missing := newDelegate(c, args, host)
	if missing == nil {
		missing = ipam.gc()
	}
	return Error(errors.Join(err, missing))
}
