package ipamsimple

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// defaultDataDir is where leases are kept: for one boot, as /run is.
const defaultDataDir = "/run/ipam-simple"

// config is the network configuration; what is not ours of it is ignored.
type config struct {
	types.PluginConf
	IPAM settings `json:"-"`
	sets []ipam.Set
}

// settings are the keys below "ipam". Their names and meanings are host-local's.
// Strings that may be empty mean the same as absent ones: runtimes send such.
type settings struct {
	Type string `json:"type"`
	addresses
	Ranges     [][]addresses  `json:"ranges"`
	Routes     []*types.Route `json:"routes"`
	ResolvConf string         `json:"resolvConf"`
	DataDir    string         `json:"dataDir"`
}

// addresses are the keys of one range.
type addresses struct {
	Subnet     string `json:"subnet"`
	RangeStart string `json:"rangeStart"`
	RangeEnd   string `json:"rangeEnd"`
	Gateway    string `json:"gateway"`
}

// readConfig reads the configuration. ADD, CHECK and STATUS refuse one with which
// something is wrong; DEL and GC go on with what could be read.
func readConfig(data []byte) (c *config, wrong error) {
	c = &config{}
	var raw struct {
		IPAM json.RawMessage `json:"ipam"`
	}
	c.IPAM.DataDir = defaultDataDir
	if err := json.Unmarshal(data, &raw); err != nil {
		return c, plugin.Errorf(types.ErrDecodingFailure, "network configuration: %w", err)
	}
	_ = json.Unmarshal(data, &c.PluginConf) // its mistakes are the calling plugin's to report; what is right is read
	if len(raw.IPAM) == 0 {
		return c, plugin.Errorf(types.ErrInvalidNetworkConfig, `ipam: it is missing; give {"type": %q, "subnet": "10.1.0.0/16"}`, Name)
	}
	if wrong = plugin.Decode(raw.IPAM, &c.IPAM, "ipam."); c.IPAM.DataDir == "" {
		c.IPAM.DataDir = defaultDataDir
	}
	if wrong == nil {
		wrong = c.readSets()
	}
	return c, wrong
}

// readSets reads and checks all ranges, and reports every mistake at once.
func (c *config) readSets() error {
	var bad []error
	if c.IPAM.addresses != (addresses{}) {
		r, errs := c.IPAM.read("ipam.")
		bad = append(bad, errs...)
		c.sets = append(c.sets, ipam.Set{r})
	}
	for i, list := range c.IPAM.Ranges {
		var set ipam.Set
		for j, a := range list {
			r, errs := a.read(fmt.Sprintf("ipam.ranges[%d][%d].", i, j))
			bad = append(bad, errs...)
			set = append(set, r)
		}
		c.sets = append(c.sets, set)
	}
	if len(bad) == 0 {
		bad = c.checkSets()
	}
	if len(bad) > 0 {
		return plugin.Errorf(types.ErrInvalidNetworkConfig, "network %s: %w", c.Name, errors.Join(bad...))
	}
	return nil
}

// read makes a range of the keys below path.
func (a addresses) read(path string) (r ipam.Range, bad []error) {
	var err error
	if a.Subnet != "" {
		if r.Subnet, err = netip.ParsePrefix(a.Subnet); err != nil {
			bad = append(bad, fmt.Errorf("%ssubnet: %q is no subnet; write one as 10.1.0.0/16 or fd00:1::/64", path, a.Subnet))
		}
	}
	for _, field := range []struct {
		name, value string
		to          *netip.Addr
	}{{"rangeStart", a.RangeStart, &r.Start}, {"rangeEnd", a.RangeEnd, &r.End}, {"gateway", a.Gateway, &r.Gateway}} {
		if field.value == "" {
			continue
		}
		if *field.to, err = netip.ParseAddr(field.value); err != nil {
			bad = append(bad, fmt.Errorf("%s%s: %q is no IP address", path, field.name, field.value))
		}
	}
	if len(bad) > 0 {
		return r, bad
	}
	r, bad = r.Complete()
	for i := range bad {
		bad[i] = fmt.Errorf("%s%w", path, bad[i])
	}
	return r, bad
}

// checkSets looks for mistakes between ranges.
func (c *config) checkSets() (bad []error) {
	if len(c.sets) == 0 {
		bad = append(bad, fmt.Errorf(`ipam.ranges: there is no range; give "ranges" or "subnet"`))
	}
	var all []ipam.Range
	families := map[bool]int{} // sets, by "is IPv4"
	for i, set := range c.sets {
		if len(set) == 0 {
			bad = append(bad, fmt.Errorf("ipam.ranges[%d]: the set is empty; give it a range, or leave it out", i))
			continue
		}
		families[set[0].Subnet.Addr().Is4()]++
		for _, r := range set {
			if r.Subnet.Addr().Is4() != set[0].Subnet.Addr().Is4() {
				bad = append(bad, fmt.Errorf("ipam.ranges: %s and %s are of two families in one set; give each a set of its own", set[0].Subnet, r.Subnet))
			}
			if o := slices.IndexFunc(all, r.Overlaps); o >= 0 {
				bad = append(bad, fmt.Errorf("ipam.ranges: %s and %s overlap; an address can be in one range only", all[o], r))
			}
			all = append(all, r)
		}
	}
	if old, err := version.GreaterThan("0.3.0", c.CNIVersion); err == nil && old && max(families[true], families[false]) > 1 {
		bad = append(bad, fmt.Errorf("cniVersion: a result of %s holds one address of each family; use 0.3.0 or newer for more sets", c.CNIVersion))
	}
	return bad
}

// serves says whether an address is from one of the ranges.
func (c *config) serves(a netip.Addr) bool {
	return slices.ContainsFunc(c.sets, func(s ipam.Set) bool { return s.Serves(a) })
}

func (c *config) attachment(args *skel.CmdArgs) ipam.Attachment {
	return ipam.Attachment{Network: c.Name, Container: args.ContainerID, Interface: args.IfName}
}

// toIPNet is p as the CNI library has it.
func toIPNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
