package bridgeveth

import (
	"errors"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/attachment"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// Verbs returns the plugin's verbs for the package skel, which calls them.
func Verbs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: add, Del: del, Check: check, GC: gc, Status: status}
}

// readConfig reads the configuration. The error names every mistake, including those below "ipam" if
// the IPAM plugin runs in this process.
func readConfig(args *skel.CmdArgs) (c *attachment.Config, wrong error) {
	c, wrong = attachment.Read(args)
	if wrong == nil || c.Name == "" {
		return c, wrong // the IPAM plugin's own verb reports mistakes below "ipam", if there is no other mistake
	}
	if _, self := findIPAM(c.IPAM.Type, args.Path); self {
		_, below := ipamconfig.Validate(args)
		wrong = plugin.Errorf(types.ErrInvalidNetworkConfig, "%w", errors.Join(wrong, below))
	}
	return c, wrong
}
