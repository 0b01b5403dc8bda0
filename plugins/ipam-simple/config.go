package ipamsimple

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

const (
	defaultDataDir = "/run/ipam-simple" // where leases are kept: for one boot, as /run is
	firstVersion   = "0.1.0"            // of a configuration without cniVersion, as libcni has it
	rangesVersion  = "0.3.0"            // the first whose result holds several addresses of a family
)

// config is what the plugin needs of a network configuration. The other keys are
// the calling plugin's.
type config struct {
	Version string          `json:"cniVersion"`
	Name    string          `json:"name"`
	IPAM    json.RawMessage `json:"ipam"`

	dataDir string
	sets    []ipam.Set
	routes  []*types.Route
	dns     types.DNS
}

// settings are the keys below "ipam". Their names and meanings are host-local's.
// Empty strings mean the same as absent ones: runtimes send such.
type settings struct {
	Type       string              `json:"type"`
	Subnet     string              `json:"subnet"` // this and the next three are the first set
	RangeStart string              `json:"rangeStart"`
	RangeEnd   string              `json:"rangeEnd"`
	Gateway    string              `json:"gateway"`
	Ranges     [][]json.RawMessage `json:"ranges"`
	Routes     []json.RawMessage   `json:"routes"`
	ResolvConf string              `json:"resolvConf"`
	DataDir    string              `json:"dataDir"`
}

// addresses are the keys of one range.
type addresses struct {
	Subnet     string `json:"subnet"`
	RangeStart string `json:"rangeStart"`
	RangeEnd   string `json:"rangeEnd"`
	Gateway    string `json:"gateway"`
}

// readNetwork reads which network it is.
func readNetwork(data []byte) (*config, error) {
	c := &config{Version: firstVersion, dataDir: defaultDataDir}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, plugin.Errorf(types.ErrDecodingFailure, "configuration: %w", err)
	}
	if c.Name == "" {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig, "name: it is missing; give the network one")
	}
	return c, nil
}

// readStore reads which network it is, and where its leases are. DEL and GC need
// no more, whatever has become of the ranges since ADD.
func readStore(data []byte) (*config, error) {
	c, err := readNetwork(data)
	if err != nil || len(c.IPAM) == 0 {
		return c, err
	}
	var ipam struct {
		DataDir string `json:"dataDir"`
	}
	if err := json.Unmarshal(c.IPAM, &ipam); err != nil {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig, "ipam.dataDir: %w", err)
	}
	c.dataDir = cmp.Or(ipam.DataDir, c.dataDir)
	return c, nil
}

// readConfig reads all of the configuration, and reports every mistake at once.
func readConfig(data []byte) (*config, error) {
	c, err := readNetwork(data)
	if err != nil {
		return nil, err
	}
	if len(c.IPAM) == 0 {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig,
			`ipam: it is missing; give {"type": %q, "subnet": "10.1.0.0/16"}`, Name)
	}
	var ipam settings
	bad := []error{plugin.Decode(c.IPAM, &ipam, "ipam.")}
	c.dataDir = cmp.Or(ipam.DataDir, c.dataDir)
	bad = append(bad, c.readSets(&ipam)...)
	bad = append(bad, c.readRoutes(ipam.Routes)...)
	c.dns, err = readResolvConf(ipam.ResolvConf)
	bad = append(bad, err)
	if err := errors.Join(bad...); err != nil {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig, "network %s: %w", c.Name, err)
	}
	return c, nil
}

// readSets reads the ranges and lists what is wrong with them.
func (c *config) readSets(s *settings) (bad []error) {
	if first := (addresses{s.Subnet, s.RangeStart, s.RangeEnd, s.Gateway}); first != (addresses{}) {
		r, mistakes := first.read("ipam.")
		bad = append(bad, mistakes...)
		c.sets = append(c.sets, ipam.Set{r})
	}
	for i, list := range s.Ranges {
		var set ipam.Set
		for j, data := range list {
			var a addresses
			path := fmt.Sprintf("ipam.ranges[%d][%d].", i, j)
			if err := plugin.Decode(data, &a, path); err != nil {
				bad = append(bad, err)
			}
			r, mistakes := a.read(path)
			bad = append(bad, mistakes...)
			set = append(set, r)
		}
		if len(set) == 0 {
			bad = append(bad, fmt.Errorf("ipam.ranges[%d]: the set is empty; give it a range, or leave it out", i))
		}
		c.sets = append(c.sets, set)
	}
	if len(bad) > 0 {
		return bad
	}
	return c.checkSets()
}

// read makes a range of the keys below path and lists what is wrong with them.
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
		address, err := netip.ParseAddr(field.value)
		if err != nil {
			bad = append(bad, fmt.Errorf("%s%s: %q is no IP address; write one of the subnet's, or leave it out", path, field.name, field.value))
		}
		*field.to = address.Unmap()
	}
	if a.Subnet != "" && !r.Subnet.IsValid() {
		return r, bad // nothing can be said about the others
	}
	r, mistakes := r.Complete()
	for _, mistake := range mistakes {
		bad = append(bad, fmt.Errorf("%s%w", path, mistake))
	}
	return r, bad
}

// checkSets lists what is wrong between ranges that are right by themselves.
func (c *config) checkSets() (bad []error) {
	if len(c.sets) == 0 {
		return []error{errors.New(`ipam.ranges: there is no range; give "ranges" or "subnet"`)}
	}
	var all []ipam.Range
	families := map[int]int{} // sets, by bits of an address
	for _, set := range c.sets {
		family := set[0].Start.BitLen()
		families[family]++
		for _, r := range set {
			if r.Start.BitLen() != family {
				bad = append(bad, fmt.Errorf("ipam.ranges: %s and %s are of two families in one set; give each a set of its own", set[0], r))
			}
			for _, o := range all {
				bad = append(bad, clash(r, o))
			}
			all = append(all, r)
		}
	}
	if old, err := version.GreaterThan(rangesVersion, c.Version); err == nil && old && max(families[32], families[128]) > 1 {
		bad = append(bad, fmt.Errorf("cniVersion: a result of %s holds one address of each family; use %s or newer for more sets", c.Version, rangesVersion))
	}
	return bad
}

// clash is what keeps two ranges from being used together, nil if nothing does.
func clash(a, b ipam.Range) error {
	switch {
	case a.Overlaps(b):
		return fmt.Errorf("ipam.ranges: %s and %s overlap; an address can be in one range only", b, a)
	case a.Contains(b.Gateway):
		return fmt.Errorf("ipam.ranges: %s hands out %s, the gateway of %s; give both the same gateway, or other bounds", a, b.Gateway, b)
	case b.Contains(a.Gateway):
		return clash(b, a)
	}
	return nil
}

// serves says whether an address is from one of the ranges.
func (c *config) serves(a netip.Addr) bool {
	return slices.ContainsFunc(c.sets, func(s ipam.Set) bool { return s.Serves(a) })
}

// attachment is the one that a verb is about.
func (c *config) attachment(args *skel.CmdArgs) ipam.Attachment {
	return ipam.Attachment{Network: c.Name, Container: args.ContainerID, Interface: args.IfName}
}
