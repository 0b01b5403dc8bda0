package attachment

import (
	"errors"
	"fmt"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// readVLANs parses the keys vlan, vlanTrunk and preserveDefaultVlan.
func (c *Config) readVLANs() error {
	var bad []error
	if c.VLAN < 0 || c.VLAN > setup.MaxVLAN {
		bad = append(bad, fmt.Errorf("vlan: %d is not between 1 and %d; leave it out for no VLAN", c.VLAN, setup.MaxVLAN))
	}
	c.vlans = setup.VLANs{Native: c.VLAN, KeepDefault: c.PreserveDefaultVLAN}
	if c.Type == plugin.Bridge && c.VLAN == 0 && len(c.VLANTrunk) > 0 {
		c.vlans.Untagged = 1 // as the reference plugin does, whatever the bridge's default VLAN is
	}
	for i, t := range c.VLANTrunk {
		ranges, err := t.ranges()
		if err != nil {
			bad = append(bad, fmt.Errorf("vlanTrunk[%d]: %w", i, err))
		}
		c.vlans.Trunk = append(c.vlans.Trunk, ranges...)
	}
	switch routed := fmt.Sprintf("%s.%d", c.Bridge, c.VLAN); {
	case !c.IsGateway:
	case c.VLAN == 0 && len(c.VLANTrunk) > 0 && !c.PreserveDefaultVLAN && c.vlans.Untagged == 0:
		bad = append(bad, errors.New(`vlanTrunk: the gateway would be in the bridge's default VLAN, and containers are not; set "vlan", or "preserveDefaultVlan"`))
	case c.VLAN != 0 && len(routed) > maxInterfaceName:
		bad = append(bad, fmt.Errorf("vlan: the gateway's link would have the name %s, which is longer than %d characters; use a shorter name of the bridge", routed, maxInterfaceName))
	}
	return errors.Join(bad...)
}

// maxInterfaceName is the greatest length of an interface name, in bytes (IFNAMSIZ-1 in
// linux/if.h).
const maxInterfaceName = 15

// ranges returns the VLANs of an entry of vlanTrunk as ranges.
func (t vlanTrunk) ranges() (list []setup.VLANRange, err error) {
	if t.ID != nil {
		list = append(list, setup.VLANRange{First: *t.ID, Last: *t.ID})
	}
	if (t.MinID == nil) != (t.MaxID == nil) || t.ID == nil && t.MinID == nil {
		return nil, errors.New(`an entry needs "id", or both "minID" and "maxID"`)
	}
	if t.MinID != nil {
		list = append(list, setup.VLANRange{First: *t.MinID, Last: *t.MaxID})
	}
	for _, r := range list {
		if r.First < 1 || r.First > r.Last || r.Last > setup.MaxVLAN {
			return nil, fmt.Errorf("%d to %d is no range between 1 and %d", r.First, r.Last, setup.MaxVLAN)
		}
	}
	return list, nil
}
