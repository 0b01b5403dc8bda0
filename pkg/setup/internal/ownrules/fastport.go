package ownrules

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/bridges"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/netns"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/nft"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/plan"
	"github.com/bridgeveth/bridgeveth/pkg/setup/internal/rtnl"
)

// The first version of Linux that adds a flow to a flowtable only if the lowest links of its path are devices of
// the flowtable: the ports of a bridge, the members of a bond, the link below a VLAN link. Earlier versions
// then use the bridge, the bond or the VLAN link itself ("netfilter: flowtable: bail out if forward path cannot
// be discovered", nft_dev_forward_path in net/netfilter/nf_flow_table_path.c). The kernel does not tell in any
// other way which behaviour it has.
const lowestMajor, lowestMinor = 7, 2

// needsLowest reports whether this kernel needs the lowest links in a flowtable. With other kernels, the ports stay
// out: the host may have thousands, and each would make the flowtable longer.
func needsLowest() bool {
	var name unix.Utsname
	var major, minor int
	if unix.Uname(&name) != nil {
		return false
	}
	_, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	return err == nil && (major > lowestMajor || major == lowestMajor && minor >= lowestMinor)
}

// withLowest adds to a list of devices the links below them. Of a bridge other than own, it leaves out the
// ports of containers and virtual machines. They come and go, and only their own network could add them.
func withLowest(n *netns.Namespace, devices []string, own string) ([]string, error) {
	add := func(l rtnl.Link) {
		if l.Name != "" && !slices.Contains(devices, l.Name) {
			devices = append(devices, l.Name)
		}
	}
	for i := 0; i < len(devices); i++ { // add makes the list longer
		on := devices[i]
		l, err := rtnl.ByName(n, on)
		switch {
		case rtnl.Absent(err): // deleted meanwhile
			err = nil
		case err != nil:
		case l.Kind == "vlan":
			var below rtnl.Link
			if below, err = rtnl.ByIndex(n, l.Peer); rtnl.Absent(err) { // in another namespace
				err = nil
			}
			add(below)
		case l.Kind == "bridge" || l.Kind == "bond":
			err = bridges.EachPort(n, on, func(port rtnl.Link) bool {
				if on == own || l.Kind == "bond" || port.Kind != "veth" && port.Kind != "tun" {
					add(port)
				}
				return true
			})
		}
		if err != nil {
			return nil, err
		}
	}
	return devices, nil
}

// JoinFastPath adds a port to the flowtables of its network, if the kernel needs this.
func JoinFastPath(n *netns.Namespace, p *plan.Port) error {
	return eachFlowtable(p.Network, func(family int) error {
		return modifyDevices(n, family, func(c *nft.Change, devices []string) {
			if !slices.Contains(devices, p.LinkName()) {
				c.AddFlowtable(flowtable, []string{p.LinkName()})
			}
		})
	})
}

// VerifyFastPath checks that a port is in the flowtables of its network, if the kernel needs this.
func VerifyFastPath(n *netns.Namespace, p *plan.Port) error {
	return eachFlowtable(p.Network, func(family int) error {
		devices, exists, err := nft.FlowtableDevices(n, family, flowtable)
		if err != nil || !exists {
			return err
		}
		return plan.Differ("port "+p.LinkName()+" in the flowtable "+flowtable, slices.Contains(devices, p.LinkName()), true)
	})
}

// eachFlowtable calls f for each family whose flowtable must contain the ports of the network. f leaves out a
// flowtable that does not exist: MissingRules names it, and its creation adds all ports.
func eachFlowtable(net *plan.Network, f func(family int) error) error {
	if net.FastPath == plan.FastPathOff || !needsLowest() {
		return nil
	}
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if net.Has(family) {
			errs = append(errs, f(family))
		}
	}
	return errors.Join(errs...)
}

// modifyDevices calls f with the present devices of the flowtable of a family, and sends the transaction that f
// fills.
func modifyDevices(n *netns.Namespace, family int, f func(c *nft.Change, devices []string)) error {
	err := nft.Modify(n, table(family), func(c *nft.Change) error {
		devices, exists, err := nft.FlowtableDevices(n, family, flowtable)
		if exists && err == nil {
			f(c, devices)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("change the devices of flowtable %s for %s: %w", flowtable, ipVersion(family), err)
	}
	return nil
}

// LeaveFastPath deletes those devices from the flowtables for which gone returns true. Linux 6.16 and newer keep
// the name of a deleted link in a flowtable.
func LeaveFastPath(n *netns.Namespace, gone func(device string) bool) error {
	if !needsLowest() {
		return nil
	}
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		errs = append(errs, modifyDevices(n, family, func(c *nft.Change, devices []string) {
			if left := slices.DeleteFunc(devices, func(d string) bool { return !gone(d) }); len(left) > 0 {
				c.DeleteFlowtableDevices(flowtable, left)
			}
		}))
	}
	return errors.Join(errs...)
}
