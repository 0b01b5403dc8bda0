// Package ipamconfig reads the configuration of ipam-simple: the keys below "ipam", and the
// addresses that the runtime requests. It changes nothing on the host.
//
// config.go declares the configuration keys, pool.go those of a pool that hosts share.
package ipamconfig

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/bridgeveth/bridgeveth/pkg/ipam"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

const (
	defaultStickyDir = "/var/lib/ipam-simple"  // sticky addresses outlive a reboot, so they are not in /run
	defaultImport    = "/var/lib/cni/networks" // default dataDir of host-local

	firstVersion  = "0.1.0" // libcni also uses this version for a configuration without cniVersion
	rangesVersion = "0.3.0" // the first version in which a result may have several addresses of a family
)

// Config is the part of a network configuration that ipam-simple reads. Other keys are for the
// plugin that calls ipam-simple. Read sets the fields without a JSON key.
type Config struct {
	Version string          `json:"cniVersion"`
	Name    string          `json:"name"`
	IPAM    json.RawMessage `json:"ipam"`
	Args    json.RawMessage `json:"args"`
	Runtime json.RawMessage `json:"runtimeConfig"`

	Location      `json:"-"` // where leases are stored
	Sets          []ipam.Set
	Routes        []*types.Route
	DNS           types.DNS
	ReadyWhenFull bool
	StickyFor     time.Duration // how long a sticky address is kept; 0 means that addresses are not sticky
	StickyDir     string
	Pool          *Pool // nil if no other host gives out the addresses

	Requested   []netip.Addr
	RequestedBy string // the key that requests the addresses
	Pod         string // "NAMESPACE/NAME" if addresses are sticky

	capabilities capabilities
}

// Location has the keys below "ipam" that say where leases are stored.
type Location struct {
	Type       string `json:"type"`
	DataDir    string `json:"dataDir"`
	ImportFrom string `json:"importFrom"`
}

// Keys has the keys below "ipam". A key that host-local also has means the same as in
// host-local. An empty string means the same as an absent key, because runtimes send empty strings.
type Keys struct {
	Range
	Ranges        [][]json.RawMessage `json:"ranges"`
	Routes        []json.RawMessage   `json:"routes"`
	ResolvConf    string              `json:"resolvConf"`
	ReadyWhenFull bool                `json:"readyWhenFull"`
	Sticky        string              `json:"sticky"`
	StickyDir     string              `json:"stickyDir"`
	Pool          json.RawMessage     `json:"pool"`
	Location
}

// Range has the keys that describe one range.
type Range struct {
	Subnet     string   `json:"subnet"`
	RangeStart string   `json:"rangeStart"`
	RangeEnd   string   `json:"rangeEnd"`
	Gateway    string   `json:"gateway"`
	Exclude    []string `json:"exclude"`
	Static     []string `json:"static"`
}

// ReadNetwork reads only the network's name and the folder of its leases. DEL and GC need no other
// keys, so they succeed even if the ranges have become invalid since ADD.
func ReadNetwork(data []byte) (*Config, error) {
	c := &Config{Version: firstVersion}
	if err := plugin.Read(data, c, ""); err != nil {
		return nil, err
	}
	if c.Name == "" {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig, "name: it is missing; give the network a name")
	}
	if len(c.IPAM) > 0 {
		if err := plugin.Read(c.IPAM, &c.Location, "ipam."); err != nil {
			return nil, err
		}
	}
	if c.Type == plugin.HostLocal { // host-local has its own reservations in the same dataDir
		c.ImportFrom = cmp.Or(c.ImportFrom, c.DataDir)
	}
	c.DataDir = cmp.Or(c.DataDir, ipam.DefaultDir)
	c.ImportFrom = cmp.Or(c.ImportFrom, defaultImport)
	return c, nil
}

// Read reads the whole configuration. The error names every mistake.
func Read(args *skel.CmdArgs) (*Config, error) {
	c, err := ReadNetwork(args.StdinData)
	if err != nil {
		return nil, err
	}
	if err := c.read(args); err != nil {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig, "network %s: %w", c.Name, err)
	}
	return c, nil
}

// Validate returns the sets of ranges of a configuration, and an error that names every mistake in
// the part that ipam-simple reads. The text of the error has one line for each mistake.
func Validate(args *skel.CmdArgs) ([]ipam.Set, error) {
	c, err := ReadNetwork(args.StdinData)
	if err != nil {
		return nil, err
	}
	err = c.read(args)
	return c.Sets, err
}

// read reads the keys that ReadNetwork does not read. The error names every mistake.
func (c *Config) read(args *skel.CmdArgs) (err error) {
	if len(c.IPAM) == 0 {
		return fmt.Errorf(`ipam: it is missing; give {"type": %q, "subnet": "10.1.0.0/16"}`, plugin.IPAMSimple)
	}
	var ipam Keys
	bad := []error{c.decode(c.IPAM, &ipam, "ipam.")}
	if len(c.Runtime) > 0 {
		bad = append(bad, plugin.Read(c.Runtime, &c.capabilities, "runtimeConfig."))
	}
	bad = append(bad, c.readSets(&ipam)...)
	bad = append(bad, c.readPool(&ipam)...)
	bad = append(bad, c.readRoutes(ipam.Routes)...)
	bad = append(bad, c.readSticky(&ipam))
	c.ReadyWhenFull = ipam.ReadyWhenFull
	c.DNS, err = readResolvConf(ipam.ResolvConf)
	return errors.Join(append(bad, err, c.readRequest(args.Args))...)
}

// decode calls plugin.Decode. If the IPAM plugin is called host-local in the configuration, decode
// accepts unknown keys, as host-local does.
func (c *Config) decode(data []byte, v any, path string) error {
	unknown, wrong := plugin.Decode(data, v, path)
	if c.Type == plugin.HostLocal {
		return wrong
	}
	return errors.Join(unknown, wrong)
}

// readSticky reads the keys about sticky addresses, which are kept for a pod after it has ended.
func (c *Config) readSticky(s *Keys) (err error) {
	c.StickyDir = cmp.Or(s.StickyDir, defaultStickyDir)
	if s.Sticky == "" {
		return nil
	}
	if c.StickyFor, err = time.ParseDuration(s.Sticky); err != nil || c.StickyFor <= 0 {
		return fmt.Errorf("ipam.sticky: %q is not a positive duration; write it as 30m or 24h", s.Sticky)
	}
	return nil
}

// readSets reads all sets of ranges and returns the mistakes. The order of the sets is: first the
// ranges that the runtime passes, then the range directly below "ipam", then the list "ranges".
func (c *Config) readSets(s *Keys) (bad []error) {
	bad = c.readRanges("runtimeConfig.ipRanges", c.capabilities.IPRanges)
	if first := s.Range; !first.empty() {
		set, mistakes := first.read("ipam.")
		bad = append(bad, mistakes...)
		c.Sets = append(c.Sets, set)
	}
	bad = append(bad, c.readRanges("ipam.ranges", s.Ranges)...)
	if len(bad) > 0 {
		return bad
	}
	return c.checkSets()
}

// readRanges reads a list of sets of ranges, and returns the mistakes. The parameter key is the
// name of the list in the configuration. Each mistake begins with this name.
func (c *Config) readRanges(key string, sets [][]json.RawMessage) (bad []error) {
	for i, list := range sets {
		var set ipam.Set
		for j, data := range list {
			var a Range
			path := fmt.Sprintf("%s[%d][%d].", key, i, j)
			if err := c.decode(data, &a, path); err != nil {
				bad = append(bad, err)
			}
			parts, mistakes := a.read(path)
			bad = append(bad, mistakes...)
			set = append(set, parts...)
		}
		if len(list) == 0 {
			bad = append(bad, fmt.Errorf("%s[%d]: the set is empty; add a range, or delete the set", key, i))
		}
		c.Sets = append(c.Sets, set)
	}
	return bad
}

// empty reports whether no key is set.
func (a Range) empty() bool {
	return a.Subnet+a.RangeStart+a.RangeEnd+a.Gateway == "" && len(a.Exclude)+len(a.Static) == 0
}

// read returns the ranges that the keys describe, and the mistakes in these keys. In a mistake,
// path precedes the name of the key, for example "ipam." in "ipam.subnet". read returns several
// ranges if excluded or static addresses split the range.
func (a Range) read(path string) (set ipam.Set, bad []error) {
	var r ipam.Range
	var err error
	if a.Subnet != "" {
		if r.Subnet, err = netip.ParsePrefix(a.Subnet); err != nil {
			bad = append(bad, fmt.Errorf("%ssubnet: %q is not a subnet; write it as 10.1.0.0/16 or fd00:1::/64", path, a.Subnet))
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
			bad = append(bad, fmt.Errorf("%s%s: %q is not an IP address; give an address of the subnet, or delete the key", path, field.name, field.value))
		}
		*field.to = address.Unmap()
	}
	exclude, mistakes := parseIntervals(path+"exclude", a.Exclude)
	bad = append(bad, mistakes...)
	static, mistakes := parseIntervals(path+"static", a.Static)
	if bad = append(bad, mistakes...); a.Subnet != "" && !r.Subnet.IsValid() {
		return nil, bad // without a subnet, the other keys cannot be checked
	}
	r, mistakes = r.Complete()
	if len(bad)+len(mistakes) == 0 {
		set, mistakes = r.Split(exclude, static)
	}
	for _, mistake := range mistakes {
		bad = append(bad, fmt.Errorf("%s%w", path, mistake))
	}
	return set, bad
}

// parseIntervals reads a list of addresses, subnets and intervals, and returns the mistakes. The
// parameter key is the name of the list in the configuration. Each mistake begins with this name.
func parseIntervals(key string, texts []string) (list []ipam.Interval, bad []error) {
	for i, text := range texts {
		s, err := ipam.ParseInterval(text)
		if err != nil {
			bad = append(bad, fmt.Errorf("%s[%d]: %w", key, i, err))
		}
		list = append(list, s)
	}
	return list, bad
}

// checkSets compares the ranges with each other, and returns mistakes such as an overlap. The
// caller must have checked each range by itself.
func (c *Config) checkSets() (bad []error) {
	if len(c.Sets) == 0 {
		return []error{errors.New(`ipam.ranges: no range is configured; add "ranges" or "subnet"`)}
	}
	var all []ipam.Range
	families := map[int]int{} // number of sets of each family, by the number of bits of an address
	for _, set := range c.Sets {
		family := set[0].Start.BitLen()
		families[family]++
		for _, r := range set {
			if r.Start.BitLen() != family {
				bad = append(bad, fmt.Errorf("ipam.ranges: %s and %s are of different address families in one set; make a set for each family", set[0], r))
			}
			for _, o := range all {
				bad = append(bad, conflict(r, o))
			}
			all = append(all, r)
		}
	}
	if old, err := version.GreaterThan(rangesVersion, c.Version); err == nil && old && max(families[32], families[128]) > 1 {
		bad = append(bad, fmt.Errorf("cniVersion: a result of version %s holds one address of each family; use %s or newer for more sets", c.Version, rangesVersion))
	}
	return bad
}

// conflict returns an error if two ranges overlap, or if one of them gives out the gateway of the
// other.
func conflict(a, b ipam.Range) error {
	switch {
	case a.Overlaps(b):
		return fmt.Errorf("ipam.ranges: %s and %s overlap; change their bounds, since an address can be in one range only", b, a)
	case a.Contains(b.Gateway):
		return fmt.Errorf("ipam.ranges: %s gives out %s, which is the gateway of %s; give both ranges the same gateway, or change their bounds", a, b.Gateway, b)
	case b.Contains(a.Gateway):
		return conflict(b, a)
	}
	return nil
}

// Serves reports whether one of the configured ranges gives out the given address.
func (c *Config) Serves(a netip.Addr) bool {
	return slices.ContainsFunc(c.Sets, func(s ipam.Set) bool { return s.Serves(a) })
}

// Attachment returns the attachment for which the runtime has called the plugin.
func (c *Config) Attachment(args *skel.CmdArgs) ipam.Attachment {
	return ipam.Attachment{Network: c.Name, Container: args.ContainerID, Interface: args.IfName}
}
