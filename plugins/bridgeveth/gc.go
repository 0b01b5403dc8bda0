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
	valid, err := ValidAttachments(c.Name, args)
	if err != nil {
		return err
	}
	host, err := setup.CurrentHost()
	if err != nil {
		return Error(err)
	}
	defer host.Close()
	err = host.Collect(c.Name, c.Bridge, valid)
	ipam, missing := newDelegate(c, args, host)
	if missing == nil {
		missing = ipam.gc()
	}
	return Error(errors.Join(err, missing))
}

// ValidAttachments are those of a network that GC is to leave alone: see
// plugin.ValidAttachments.
func ValidAttachments(network string, args *skel.CmdArgs) (valid []setup.Attachment, err error) {
	listed, err := plugin.ValidAttachments(args.StdinData)
	for _, a := range listed {
		valid = append(valid, setup.Attachment{Network: network, Container: a.ContainerID, Interface: a.IfName})
	}
	return valid, err
}
