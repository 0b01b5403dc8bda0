// Package ipamsimple is the CNI plugin ipam-simple: it gives containers addresses
// from ranges on this host. Its verbs can be called within another plugin's
// process; as a program it is bridgeveth under another name.
package ipamsimple

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/flock"
	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// Name is what the program is called by, and Reference the plugin of the reference
// implementation whose place it takes where it is installed by that name.
const (
	Name      = "ipam-simple"
	Reference = "host-local"
)

// Names are both.
var Names = []string{Name, Reference}

// lockWait is how long a verb waits for others to be done with the store. Each
// holds it for less than a millisecond, or for as long as the disk takes where the
// addresses of a name are new.
var lockWait = 10 * time.Second

// Verbs are the plugin's, for skel.
func Verbs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: printAdd, Del: Del, Check: Check, GC: GC, Status: Status}
}

// printAdd is Add with its result printed, in the version of the configuration. Where nobody
// reads it, nobody is to have the addresses.
func printAdd(args *skel.CmdArgs) error {
	c, err := readConfig(args)
	if err != nil {
		return err
	}
	result, err := c.add(args)
	if err != nil {
		return err
	}
	if err := plugin.PrintResult(result, c.Version); err != nil {
		return plugin.Errorf(types.ErrIOFailure, "%w", errors.Join(err, Del(args)))
	}
	return nil
}

// Add reserves one address from each set, or returns those that the attachment
// has. The result holds no interfaces: CNI specification 1.1.0, "Delegated Plugins
// (IPAM)".
func Add(args *skel.CmdArgs) (*current.Result, error) {
	c, err := readConfig(args)
	if err != nil {
		return nil, err
	}
	return c.add(args)
}

func (c *config) add(args *skel.CmdArgs) (*current.Result, error) {
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, Routes: c.routes, DNS: c.dns}
	s, err := c.open()
	err = c.use(s, err, func() error {
		leases, err := s.Reserve(c.request(args))
		for _, l := range leases {
			result.IPs = append(result.IPs, &current.IPConfig{
				Address: plugin.IPNet(l.Address), Gateway: l.Gateway.AsSlice(),
			})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return result, nil
}

// request is what an attachment asks of the store.
func (c *config) request(args *skel.CmdArgs) ipam.Request {
	return ipam.Request{
		Attachment: c.attachment(args), Namespace: ipam.NamespaceAt(args.Netns), Sets: c.sets, Addresses: c.wanted,
		Sticky: ipam.Sticky{Name: c.pod, For: c.stickyFor}, StickyDir: c.stickyDir, InUse: alive,
	}
}

// Del frees what the attachment holds. It needs no ranges.
func Del(args *skel.CmdArgs) error {
	c, err := readNetwork(args.StdinData)
	if err != nil {
		return err
	}
	s, err := c.openToFree()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no store, no leases
	}
	return c.use(s, err, func() error { return s.Release(c.attachment(args)) })
}

// Check compares the attachment's leases with the addresses in prevResult that are
// from our ranges; other plugins may have added more.
func Check(args *skel.CmdArgs) error {
	c, err := readConfig(args)
	if err != nil {
		return err
	}
	var conf types.PluginConf
	if err := plugin.Read(args.StdinData, &conf, ""); err != nil {
		return err
	}
	result, err := plugin.Previous(&conf)
	if err == nil && result == nil {
		err = plugin.Errorf(types.ErrInvalidNetworkConfig, "prevResult: it is missing; CHECK needs what ADD returned")
	}
	if err != nil {
		return err
	}
	var leases []ipam.Lease
	s, err := c.openToLook()
	err = c.use(s, err, func() (err error) {
		leases, err = s.Held(c.attachment(args))
		return err
	})
	if err != nil {
		return err
	}
	return c.compare(leases, result)
}

// compare finds the addresses of a result that are not leased, and the leases that
// are not in it.
func (c *config) compare(leases []ipam.Lease, result *current.Result) error {
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
		if a = a.Unmap(); !leased[a] && c.serves(a) {
			wrong = append(wrong, fmt.Errorf("address %s: it is in prevResult, but not leased to the interface", a))
		}
		delete(leased, a)
	}
	for _, a := range slices.SortedFunc(maps.Keys(leased), netip.Addr.Compare) {
		wrong = append(wrong, fmt.Errorf("address %s: it is leased to the interface, but not in prevResult", a))
	}
	if len(wrong) > 0 {
		return plugin.Errorf(plugin.CodeDrift, "%w", errors.Join(wrong...))
	}
	return nil
}

// GC frees the leases of all attachments that are not in the valid list. Like DEL
// it needs no ranges.
func GC(args *skel.CmdArgs) error {
	c, err := readNetwork(args.StdinData)
	if err != nil {
		return err
	}
	listed, err := plugin.ValidAttachments(args.StdinData)
	if err != nil {
		return err
	}
	var valid []ipam.Attachment
	for _, a := range listed {
		valid = append(valid, ipam.Attachment{Network: c.Name, Container: a.ContainerID, Interface: a.IfName})
	}
	s, err := c.openToFree()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no store, no leases
	}
	return c.use(s, err, func() error { return s.ReleaseExcept(c.Name, valid) })
}

// Status is an error when a set has no address left, not even by freeing what GC
// would free, unless the configuration takes that for ready, or when the store cannot
// be used. It changes nothing.
func Status(args *skel.CmdArgs) error {
	_, err := Foresee(args)
	return err
}

// Foresee is Status that returns the result of the ADD that it promises. Of each address
// the subnet and the gateway count, and not the address itself.
func Foresee(args *skel.CmdArgs) (*current.Result, error) {
	c, err := readConfig(args)
	if err != nil {
		return nil, err
	}
	if err := writable(c.DataDir); err != nil {
		return nil, err
	}
	var ranges []ipam.Range
	s, err := c.openToLook()
	err = c.use(s, err, func() (err error) {
		ranges, err = s.Available(ipam.Request{Attachment: ipam.Attachment{Network: c.Name}, Sets: c.sets, InUse: needed()})
		if c.readyWhenFull && errors.Is(err, ipam.ErrExhausted) {
			ranges, err = nil, nil
			for _, set := range c.sets {
				ranges = append(ranges, set[0])
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, Routes: c.routes, DNS: c.dns}
	for _, r := range ranges {
		result.IPs = append(result.IPs, &current.IPConfig{
			Address: plugin.IPNet(netip.PrefixFrom(r.Start, r.Subnet.Bits())), Gateway: r.Gateway.AsSlice(),
		})
	}
	return result, nil
}

// writable says whether a store could be made in a folder, or in the nearest one
// above it that exists.
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

// open opens the store, made when absent.
func (c *config) open() (*ipam.Store, error) {
	s, err := ipam.Open(c.DataDir, lockWait)
	if err == nil {
		s.HostLocal, s.FindAttached = c.ImportFrom, present
	}
	return s, err
}

// openToFree opens the store. There may be none, and so no lease: then it is
// fs.ErrNotExist.
func (c *config) openToFree() (*ipam.Store, error) {
	if ipam.HasHostLocal(c.ImportFrom, c.Name) {
		return c.open() // what that has reserved is ours to free
	}
	return ipam.OpenExisting(c.DataDir, lockWait)
}

// openToLook opens the store, or an empty one where there is none.
func (c *config) openToLook() (*ipam.Store, error) {
	s, err := ipam.OpenExisting(c.DataDir, lockWait)
	if errors.Is(err, fs.ErrNotExist) {
		s, err = ipam.OpenInMemory()
	}
	if err == nil {
		s.HostLocal, s.FindAttached = c.ImportFrom, present
	}
	return s, err
}

// use calls f with the store that was opened, closes it, and gives errors, also
// that of opening it, their codes.
func (c *config) use(s *ipam.Store, err error, f func() error) error {
	if err == nil {
		err = errors.Join(f(), s.Close())
	}
	key := "ipam.dataDir"
	if errors.Is(err, ipam.ErrSticky) {
		key = "ipam.stickyDir"
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ipam.ErrExhausted):
		return plugin.Errorf(plugin.CodeExhausted, "%w; remove containers of the network, or widen its range", err)
	case errors.Is(err, ipam.ErrTaken):
		return plugin.Errorf(plugin.CodeTaken, "%s: %w; ask for another, or for none", c.wantedBy, err)
	case errors.Is(err, ipam.ErrNotServed):
		return plugin.Errorf(types.ErrInvalidNetworkConfig, "%s: %w", c.wantedBy, err)
	case errors.Is(err, ipam.ErrShared):
		return plugin.Errorf(types.ErrInvalidNetworkConfig, "ipam.ranges: %w", err)
	case errors.Is(err, flock.ErrTimeout):
		return plugin.Errorf(types.ErrTryAgainLater, "%s: %w", key, err)
	}
	return plugin.Errorf(types.ErrIOFailure, "%s: %w", key, err)
}
