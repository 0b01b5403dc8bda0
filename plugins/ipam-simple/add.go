package ipamsimple

import (
	"errors"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// printAdd calls add and prints its result in the CNI version of the configuration. If the result
// cannot be printed, printAdd frees the addresses again.
func (p Plugin) printAdd(args *skel.CmdArgs) error {
	c, err := ipamconfig.Read(args)
	if err != nil {
		return err
	}
	result, err := p.add(c, args)
	if err != nil {
		return err
	}
	if err := plugin.PrintResult(result, c.Version); err != nil {
		return plugin.Errorf(types.ErrIOFailure, "%w", errors.Join(err, p.Del(args)))
	}
	return nil
}

// Add reserves one address from each set of ranges. If the attachment already has addresses, Add
// returns these. The result has no interfaces, as CNI specification 1.1.0, "Delegated Plugins
// (IPAM)", requires.
func (p Plugin) Add(args *skel.CmdArgs) (*current.Result, error) {
	c, err := ipamconfig.Read(args)
	if err != nil {
		return nil, err
	}
	return p.add(c, args)
}

func (p Plugin) add(c *ipamconfig.Config, args *skel.CmdArgs) (*current.Result, error) {
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, Routes: c.Routes, DNS: c.DNS}
	err := p.withStock(c, args, func(last bool) error {
		s, err := p.open(c)
		return useUncoded(s, err, func() error {
			r := p.request(c, args)
			r.AcceptOther = last
			leases, err := s.Reserve(r)
			for _, l := range leases {
				result.IPs = append(result.IPs, &current.IPConfig{
					Address: plugin.IPNet(l.Address), Gateway: l.Gateway.AsSlice(),
				})
			}
			return err
		})
	})
	if err != nil {
		return nil, coded(c, err)
	}
	return result, nil
}

// request returns the request that reserves the attachment's addresses in the store.
func (p Plugin) request(c *ipamconfig.Config, args *skel.CmdArgs) ipam.Request {
	return ipam.Request{
		Attachment: c.Attachment(args), Namespace: ipam.NamespaceAt(args.Netns), Sets: c.Sets, Addresses: c.Requested,
		Sticky: ipam.Sticky{Name: c.Pod, For: c.StickyFor}, StickyDir: c.StickyDir, InUse: p.mayBeInUse, Pool: c.Pool != nil,
	}
}
