// Package ipamsimple is the CNI plugin ipam-simple: it gives containers addresses
// from ranges on this host. Its verbs can be called within another plugin's
// process; as a program it is bridgeveth under another name.
package ipamsimple

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// Name is what the program is called by.
const Name = "ipam-simple"

// lockWait is how long a verb waits for others to be done with the store. Each
// holds it for less than a millisecond.
const lockWait = 10 * time.Second

// HasLink says whether an attachment still has its link on the host. A plugin that
// calls our verbs, and knows how it names its links, sets it: a lease whose
// namespace cannot be seen any more is kept while there is one.
var HasLink = func(ipam.Attachment) bool { return false }

// Verbs are the plugin's, for skel.
func Verbs() skel.CNIFuncs {
	return skel.CNIFuncs{
		Add: func(args *skel.CmdArgs) error {
			result, err := Add(args)
			if err != nil {
				return err
			}
			conf, _ := readConfig(args.StdinData) // Add has read it already
			return types.PrintResult(result, conf.CNIVersion)
		},
		Del: Del, Check: Check, GC: GC, Status: Status,
	}
}

// Add reserves one address from each set, or returns those that the attachment
// has. The result holds no interfaces: CNI specification 1.1.0, "Delegated Plugins
// (IPAM)".
func Add(args *skel.CmdArgs) (*current.Result, error) {
	c, err := readConfig(args.StdinData)
	if err != nil {
		return nil, err
	}
	dns, err := c.IPAM.dns()
	if err != nil {
		return nil, err
	}
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, Routes: c.IPAM.Routes, DNS: dns}
	err = c.withStore(func(s *ipam.Store) error {
		leases, err := s.Reserve(ipam.Request{
			Attachment: c.attachment(args), Namespace: ipam.NamespaceAt(args.Netns), Sets: c.sets, Alive: alive,
		})
		for _, l := range leases {
			result.IPs = append(result.IPs, &current.IPConfig{
				Address: toIPNet(l.Address), Gateway: l.Gateway.AsSlice(),
			})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return result, nil
}

// alive says whether a lease may still be in use.
func alive(l ipam.Lease) bool { return !l.Namespace.Gone() || HasLink(l.Attachment) }

// Del gives back what the attachment holds. It needs no ranges.
func Del(args *skel.CmdArgs) error {
	c, wrong := readConfig(args.StdinData)
	if wrong != nil && c.Name == "" {
		return wrong
	}
	if _, err := os.Stat(c.IPAM.DataDir); errors.Is(err, os.ErrNotExist) {
		return nil // no store, no leases
	}
	return c.withStore(func(s *ipam.Store) error { return s.Release(c.attachment(args)) })
}

// Check compares the attachment's leases with the addresses in prevResult that are
// from our ranges; other plugins may have added more.
func Check(args *skel.CmdArgs) error {
	c, err := readConfig(args.StdinData)
	if err != nil {
		return err
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil || c.PrevResult == nil {
		return plugin.Errorf(types.ErrInvalidNetworkConfig, "prevResult: CHECK needs what ADD returned: %w", errors.Join(err, errMissing))
	}
	result, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return plugin.Errorf(types.ErrInvalidNetworkConfig, "prevResult: %w", err)
	}
	return c.withStore(func(s *ipam.Store) error {
		leases, err := s.Held(c.attachment(args))
		if err != nil {
			return err
		}
		return c.compare(leases, result)
	})
}

var errMissing = errors.New("it is missing")

// compare finds the addresses of a result that are not leased, and the leases that
// are not in it.
func (c *config) compare(leases []ipam.Lease, result *current.Result) error {
	leased := map[netip.Addr]bool{}
	for _, l := range leases {
		leased[l.Address.Addr()] = true
	}
	var wrong []error
	for _, ip := range result.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		a = a.Unmap()
		if !leased[a] && c.serves(a) {
			wrong = append(wrong, fmt.Errorf("address %s: no lease says that it is this attachment's", a))
		}
		delete(leased, a)
	}
	for a := range leased {
		wrong = append(wrong, fmt.Errorf("address %s: leased, but not in prevResult", a))
	}
	if len(wrong) > 0 {
		return plugin.Errorf(plugin.CodeDrift, "%w", errors.Join(wrong...))
	}
	return nil
}

// GC gives back the leases of all attachments that are not in the valid list.
func GC(args *skel.CmdArgs) error {
	c, wrong := readConfig(args.StdinData)
	if wrong != nil && c.Name == "" {
		return wrong
	}
	listed, err := plugin.ValidAttachments(args.StdinData)
	if err != nil {
		return err
	}
	var valid []ipam.Attachment
	for _, a := range listed {
		valid = append(valid, ipam.Attachment{Network: c.Name, Container: a.ContainerID, Interface: a.IfName})
	}
	return c.withStore(func(s *ipam.Store) error { return s.Retain(c.Name, valid) })
}

// Status is an error when a set has no address left, not even after taking back
// those of dead attachments, or when the store cannot be used.
func Status(args *skel.CmdArgs) error {
	c, err := readConfig(args.StdinData)
	if err != nil {
		return err
	}
	return c.withStore(func(s *ipam.Store) error {
		for _, set := range c.sets {
			if err := c.status(s, set); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *config) status(s *ipam.Store, set ipam.Set) error {
	free, err := s.Free(c.Name, set)
	if err != nil || free > 0 {
		return err
	}
	leases, err := s.Leases(c.Name)
	if err != nil {
		return err
	}
	for _, l := range leases {
		if set.Serves(l.Address.Addr()) && !alive(l) {
			return nil
		}
	}
	return fmt.Errorf("network %s: %w in %v", c.Name, ipam.ErrExhausted, set)
}

// withStore calls f with the store and gives errors their codes.
func (c *config) withStore(f func(*ipam.Store) error) error {
	s, err := ipam.Open(c.IPAM.DataDir, lockWait)
	if err == nil {
		err = f(s)
		err = errors.Join(err, s.Close())
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ipam.ErrExhausted):
		return plugin.Errorf(plugin.CodeExhausted, "%w; see the network's other containers, or widen its range", err)
	case errors.Is(err, flock.ErrTimeout):
		return plugin.Errorf(types.ErrTryAgainLater, "%w", err)
	}
	return plugin.Errorf(types.ErrIOFailure, "ipam.dataDir: %w", err)
}
