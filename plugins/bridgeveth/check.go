package bridgeveth

import (
	"errors"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// check is the verb CHECK (CNI specification 1.1.0, "CHECK"). It checks that everything that ADD
// has made still exists and agrees with prevResult. It changes nothing. The error has the code
// CodeDrift and names every difference.
func check(args *skel.CmdArgs) error {
	c, err := readConfig(args)
	if err != nil {
		return err
	}
	a, err := c.Open(nil, args)
	if err != nil {
		return err
	}
	defer a.Close()
	ipam, err := newDelegate(c, args, a.Host)
	if err != nil {
		return err
	}
	leased := ipam.check(a.Previous)
	host, container := a.Verify()
	if err := errors.Join(leased, host, container); err != nil {
		return plugin.Errorf(plugin.CodeDrift, "CHECK of %s in container %s: %w", args.IfName, args.ContainerID, err)
	}
	return nil
}
