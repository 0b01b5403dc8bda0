package attachment

import (
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

// maxContainerID is the greatest length of a container's ID, in bytes. The IDs of runtimes have 64
// bytes. The lease store could not store IDs of 32 KiB, because they are parts of its keys.
const maxContainerID = 4096

// CheckNames returns an error if ADD cannot use CNI_CONTAINERID or CNI_IFNAME. The CNI library has
// already checked their characters.
func CheckNames(args *skel.CmdArgs) error {
	if id := args.ContainerID; len(id) > maxContainerID {
		return plugin.Errorf(types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID: %s… has %d characters; use up to %d", id[:20], len(id), maxContainerID)
	}
	if why := reservedName(args.IfName); why != "" {
		return plugin.Errorf(types.ErrInvalidEnvironmentVariables, "CNI_IFNAME: %q is no valid link name: %s; use another name, such as eth0", args.IfName, why)
	}
	return nil
}

// reservedName returns the reason why the kernel does not create a link with exactly this name, or
// "" if it does.
func reservedName(name string) string {
	switch {
	case strings.Contains(name, "%"): // __dev_alloc_name in net/core/dev.c
		return "the kernel replaces %d by a number, and refuses every other name with %"
	case name == "all", name == "default": // sysctl_dev_name_is_allowed in include/linux/inetdevice.h
		return "the kernel uses the folders all and default below /proc/sys/net for the settings of all links"
	}
	return ""
}
