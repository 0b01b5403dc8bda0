package ipamsimple

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// Check compares the attachment's leases with the addresses in prevResult. It ignores addresses
// outside of the configured ranges, because other plugins may have added them.
func (p Plugin) Check(args *skel.CmdArgs) error {
	c, err := ipamconfig.Read(args)
	if err != nil {
		return err
	}
	var conf types.PluginConf
	if err := plugin.Read(args.StdinData, &conf, ""); err != nil {
		return err
	}
	result, err := plugin.Previous(&conf)
	if err == nil && result == nil {
		err = plugin.Errorf(types.ErrInvalidNetworkConfig, "prevResult: it is missing; CHECK needs the result of ADD")
	}
	if err != nil {
		return err
	}
	return p.checkResult(c, args, result)
}

// CheckResult is Check for a caller that has already read prevResult.
func (p Plugin) CheckResult(args *skel.CmdArgs, result *current.Result) error {
	c, err := ipamconfig.Read(args)
	if err != nil {
		return err
	}
	return p.checkResult(c, args, result)
}

func (p Plugin) checkResult(c *ipamconfig.Config, args *skel.CmdArgs, result *current.Result) error {
	var leases []ipam.Lease
	s, err := p.openToRead(c)
	err = use(c, s, err, func() (err error) {
		leases, err = s.Held(c.Attachment(args))
		return err
	})
	if err != nil {
		return err
	}
	return compare(c, leases, result)
}

// compare returns an error if the addresses of the leases and of the result differ. The error names
// each difference.
func compare(c *ipamconfig.Config, leases []ipam.Lease, result *current.Result) error {
	leased := map[netip.Addr]bool{}
	for _, l := range leases {
		leased[l.Address.Addr()] = true
	}
	var wrong []error
	if len(leases) == 0 {
		wrong = append(wrong, errors.New("no address is leased to the interface"))
	}
	for _, ip := range result.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		if a = a.Unmap(); !leased[a] && c.Serves(a) {
			wrong = append(wrong, fmt.Errorf("address %s: it is in prevResult, but not leased to the interface", a))
		}
		delete(leased, a)
	}
	for _, l := range leases {
		if a := l.Address.Addr(); leased[a] {
			wrong = append(wrong, fmt.Errorf("address %s: it is leased to the interface, but not in prevResult", a))
		}
	}
	if len(wrong) > 0 {
		return plugin.Errorf(plugin.CodeDrift, "%w", errors.Join(wrong...))
	}
	return nil
}
