package ipamsimple

import (
	"errors"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// Status returns an error if the store cannot be used, or if a set of ranges has no free address
// and would have none after GC. With readyWhenFull, a full set of ranges is no error. Status
// changes no lease. If hosts share the addresses and this host has none left, Status lets
// bridgeveth-pool claim a block: a runtime may call ADD only after STATUS has succeeded.
func (p Plugin) Status(args *skel.CmdArgs) error {
	_, err := p.ExpectedResult(args)
	return err
}

// ExpectedResult does the same checks as Status, and returns the result that ADD would have. Only
// the addresses may differ from those that ADD would reserve. The subnets and the gateways are the
// same.
func (p Plugin) ExpectedResult(args *skel.CmdArgs) (*current.Result, error) {
	c, err := ipamconfig.Read(args)
	if err != nil {
		return nil, err
	}
	if err := writable(c.DataDir); err != nil {
		return nil, err
	}
	var ranges []ipam.Range
	err = p.withStock(c, args, func(_ bool) error {
		s, err := p.openToRead(c)
		return useUncoded(s, err, func() (err error) {
			ranges, err = s.Available(ipam.Request{Attachment: ipam.Attachment{Network: c.Name}, Sets: c.Sets, InUse: p.inUseAfterGC(), Pool: c.Pool != nil})
			if c.ReadyWhenFull && errors.Is(err, ipam.ErrExhausted) {
				ranges, err = nil, nil
				for _, set := range c.Sets {
					ranges = append(ranges, set[0])
				}
			}
			return err
		})
	})
	if err != nil {
		return nil, coded(c, err)
	}
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, Routes: c.Routes, DNS: c.DNS}
	for _, r := range ranges {
		result.IPs = append(result.IPs, &current.IPConfig{
			Address: plugin.IPNet(netip.PrefixFrom(r.Start, r.Subnet.Bits())), Gateway: r.Gateway.AsSlice(),
		})
	}
	return result, nil
}

// writable returns an error if no store can be created in dir. If dir does not exist, writable
// checks the nearest existing folder above dir.
func writable(dir string) error {
	err := unix.Access(dir, unix.W_OK|unix.X_OK)
	if errors.Is(err, unix.ENOENT) && dir != filepath.Dir(dir) {
		return writable(filepath.Dir(dir))
	}
	if err != nil {
		return plugin.Errorf(types.ErrIOFailure, "ipam.dataDir: write to %s: %w", dir, err)
	}
	return nil
}
