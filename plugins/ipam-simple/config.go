package ipamsimple

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
	defaultStickyDir = "/var/lib/ipam-simple"  // where sticky addresses are: beyond it
	defaultImport    = "/var/lib/cni/networks" // dataDir of host-local, unless it is given another

	firstVersion  = "0.1.0" // of a configuration without cniVersion, as libcni has it
	rangesVersion = "0.3.0" // the first whose result holds several addresses of a family
)

// config is what the plugin needs of a network configuration. The other keys are
// the calling plugin's.
type config struct {
	Version string          `json:"cniVersion"`
	Name    string          `json:"name"`
	IPAM    json.RawMessage `json:"ipam"`
	Args    json.RawMessage `json:"args"`
	Runtime json.RawMessage `json:"runtimeConfig"`

	place         `json:"-"` // below "ipam"
	sets          []ipam.Set
	routes        []*types.Route
	dns           types.DNS
	readyWhenFull bool
	stickyFor     time.Duration // 0: not at all
	stickyDir     string

	capabilities capabilities
	wanted       []netip.Addr
	wantedBy     string // the key that names them
	pod          string // namespace and name, where addresses are sticky
}

// place are the keys below "ipam" that say where leases are.
type place struct {
	Type       string `json:"type"`
	DataDir    string `json:"dataDir"`
	ImportFrom string `json:"importFrom"`
}

// settings are the keys below "ipam". Their names and meanings are host-local's.
// Empty strings mean the same as absent ones: runtimes send such.
type settings struct {
	addresses
	Ranges        [][]json.RawMessage `json:"ranges"`
	Routes        []json.RawMessage   `json:"routes"`
	ResolvConf    string              `json:"resolvConf"`
	ReadyWhenFull bool                `json:"readyWhenFull"`
	Sticky        string              `json:"sticky"`
	StickyDir     string              `json:"stickyDir"`
	place
}

// addresses are the keys of one range.
type addresses struct {
	Subnet     string   `json:"subnet"`
	RangeStart string   `json:"rangeStart"`
	RangeEnd   string   `json:"rangeEnd"`
	Gateway    string   `json:"gateway"`
	Exclude    []string `json:"exclude"`
	Static     []string `json:"static"`
}

// readNetwork reads which network it is, and where its leases are. DEL and GC need
// no more, whatever has become of the ranges since ADD.
func readNetwork(data []byte) (*config, error) {
	c := &config{Version: firstVersion}
	if err := plugin.Read(data, c, ""); err != nil {
		return nil, err
	}
	if c.Name == "" {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig, "name: it is missing; give the network one")
	}
	if len(c.IPAM) > 0 {
		if err := plugin.Read(c.IPAM, &c.place, "ipam."); err != nil {
			return nil, err
		}
	}
	if c.Type == plugin.HostLocal { // its dataDir is where it has kept its reservations, too
		c.ImportFrom = cmp.Or(c.ImportFrom, c.DataDir)
	}
	c.DataDir = cmp.Or(c.DataDir, ipam.DefaultDir)
	c.ImportFrom = cmp.Or(c.ImportFrom, defaultImport)
	return c, nil
}

// readConfig reads all of the configuration, and reports every mistake at once.
func readConfig(args *skel.CmdArgs) (*config, error) {
	c, err := readNetwork(args.StdinData)
	if err != nil {
		return nil, err
	}
	if err := c.read(args); err != nil {
		return nil, plugin.Errorf(types.ErrInvalidNetworkConfig, "network %s: %w", c.Name, err)
	}
	return c, nil
}

// Validate names every mistake in what is ours of a configuration. It changes nothing.
func Validate(args *skel.CmdArgs) error {
	c, err := readNetwork(args.StdinData)
	if err != nil {
		return err
	}
	return c.read(args)
}

// read reads what readNetwork has left, and reports every mistake at once.
func (c *config) read(args *skel.CmdArgs) (err error) {
	if len(c.IPAM) == 0 {
		return fmt.Errorf(`ipam: it is missing; give {"type": %q, "subnet": "10.1.0.0/16"}`, plugin.IPAMSimple)
	}
	var ipam settings
	bad := []error{c.decode(c.IPAM, &ipam, "ipam.")}
	if len(c.Runtime) > 0 {
		bad = append(bad, plugin.Read(c.Runtime, &c.capabilities, "runtimeConfig."))
	}
	bad = append(bad, c.readSets(&ipam)...)
	bad = append(bad, c.readRoutes(ipam.Routes)...)
	bad = append(bad, c.readSticky(&ipam))
	c.readyWhenFull = ipam.ReadyWhenFull
	c.dns, err = readResolvConf(ipam.ResolvConf)
	return errors.Join(append(bad, err, c.readRequest(args.Args))...)
}

// decode is plugin.Decode, which under the name of host-local passes over unknown keys as
// that does.
func (c *config) decode(data []byte, v any, path string) error {
	unknown, wrong := plugin.Decode(data, v, path)
	if c.Type == plugin.HostLocal {
		return wrong
	}
	return errors.Join(unknown, wrong)
}

// readSticky reads how long an address stays with a pod that is gone.
func (c *config) readSticky(s *settings) (err error) {
	c.stickyDir = cmp.Or(s.StickyDir, defaultStickyDir)
	if s.Sticky == "" {
		return nil
	}
	if c.stickyFor, err = time.ParseDuration(s.Sticky); err != nil || c.stickyFor <= 0 {
		return fmt.Errorf("ipam.sticky: %q is no time; write one as 30m or 24h", s.Sticky)
	}
	return nil
}

// readSets reads the ranges and lists what is wrong with them: first those that the
// runtime asks for, then the single one, then the others.
func (c *config) readSets(s *settings) (bad []error) {
	bad = c.readRanges("runtimeConfig.ipRanges", c.capabilities.IPRanges)
	if first := s.addresses; !first.empty() {
		set, mistakes := first.read("ipam.")
		bad = append(bad, mistakes...)
		c.sets = append(c.sets, set)
	}
	bad = append(bad, c.readRanges("ipam.ranges", s.Ranges)...)
	if len(bad) > 0 {
		return bad
	}
	return c.checkSets()
}

// readRanges reads a list of sets below a key.
func (c *config) readRanges(key string, sets [][]json.RawMessage) (bad []error) {
	for i, list := range sets {
		var set ipam.Set
		for j, data := range list {
			var a addresses
			path := fmt.Sprintf("%s[%d][%d].", key, i, j)
			if err := c.decode(data, &a, path); err != nil {
				bad = append(bad, err)
			}
			parts, mistakes := a.read(path)
			bad = append(bad, mistakes...)
			set = append(set, parts...)
		}
		if len(list) == 0 {
			bad = append(bad, fmt.Errorf("%s[%d]: the set is empty; give it a range, or leave it out", key, i))
		}
		c.sets = append(c.sets, set)
	}
	return bad
}

// empty says whether none of the keys is given.
func (a addresses) empty() bool {
	return a.Subnet+a.RangeStart+a.RangeEnd+a.Gateway == "" && len(a.Exclude)+len(a.Static) == 0
}

// read makes a range, in parts, of the keys below path and lists what is wrong with
// them.
func (a addresses) read(path string) (set ipam.Set, bad []error) {
	var r ipam.Range
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
	exclude, mistakes := parseIntervals(path+"exclude", a.Exclude)
	bad = append(bad, mistakes...)
	static, mistakes := parseIntervals(path+"static", a.Static)
	if bad = append(bad, mistakes...); a.Subnet != "" && !r.Subnet.IsValid() {
		return nil, bad // nothing can be said about the others
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

// parseIntervals reads a list of addresses, subnets and spans below a key.
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
